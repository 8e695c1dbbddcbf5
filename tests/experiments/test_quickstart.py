"""The quickstart's whole path, cut to a few steps; its real figures stand in the README."""

import dataclasses
import json
import re

import numpy as np
import pytest

import clip_jax
from experiments import quickstart
from experiments.demos import emoji_demo
from experiments.evaluation.retrieval import RetrievalResult


@pytest.fixture
def small_demos(monkeypatch, train_config):
    """The recipes' data and evaluation with a model that compiles in seconds."""
    for name, (make_config, demo) in quickstart.DEMOS.items():
        recipe = make_config()
        augment = dataclasses.replace(recipe.data.augment, variants=1)
        data = dataclasses.replace(
            recipe.data,
            directory=train_config.data.directory,
            batch_size=16,
            augment=augment,
        )
        config = dataclasses.replace(
            train_config,
            model=dataclasses.replace(
                train_config.model,
                text=dataclasses.replace(train_config.model.text, vocab_size=400),
            ),
            data=data,
            evaluators=(),
        )
        monkeypatch.setitem(quickstart.DEMOS, name, (lambda config=config: config, demo))


@pytest.mark.parametrize("data", ["digits", "emoji"])
def test_from_pictures_to_a_page(small_demos, data, tmp_path, capsys):
    arguments = [f"--data={data}", f"--workdir={tmp_path}", "--steps=3"]
    assert quickstart.main(arguments) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    grid = {"digits": "captions.png", "emoji": "names.png"}[data]
    assert {"loss.png", "similarity.png", grid} <= {path.name for path in tmp_path.iterdir()}
    printed = capsys.readouterr().out
    # Baselines depend on no training: these are their real figures.
    baseline = {
        "digits": r"pixel nearest neighbour \(sees the labels\) +99.4 %",
        "emoji": r"pixel nearest neighbour: first +18.8 %",
    }[data]
    assert re.search(baseline, printed)
    assert {"digits": "99.4 %", "emoji": "18.8 %"}[data] in page
    assert clip_jax.load(tmp_path / "model").processor(text="семь")["input_ids"].shape == (1, 12)
    # The same command finds everything done and draws the page again.
    rows = (tmp_path / "metrics.jsonl").read_text()
    assert quickstart.main(arguments) == 0
    assert (tmp_path / "metrics.jsonl").read_text() == rows
    assert [json.loads(line)["step"] for line in rows.splitlines()] == [1, 2, 3]


def test_emoji_baseline_finds_the_twin(rng):
    """A drawing whose Twemoji twin has the same pixels is found first."""
    from experiments.data.digits_ru import encode_png

    pictures = rng.integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    twins = [
        {"image": encode_png(p).read(), "style": emoji_demo.TWEMOJI, "id": i}
        for i, p in enumerate(pictures)
    ]
    drawings = [dict(twins[i], style=1) for i in (4, 1)]
    found = emoji_demo._nearest_twemoji(drawings, twins[::-1])
    assert isinstance(found, RetrievalResult)
    assert found.ranks.tolist() == [0, 0] and found.best[:, 0].tolist() == [4, 1]


def test_wrong_arguments(capsys):
    with pytest.raises(SystemExit) as caught:
        quickstart.main(["--data=faces"])
    assert caught.value.code == 2
    assert "invalid choice: 'faces'" in capsys.readouterr().err
