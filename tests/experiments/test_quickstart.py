"""The quickstart's whole path, cut to a few steps; its real figures stand in the README."""

import dataclasses
import functools
import json
import re

import jax
import numpy as np
import pytest

import clip_jax
import rudolph_jax
from experiments import quickstart
from experiments.demos import zero_shot
from experiments.evaluation.methods.retrieval import RetrievalResult


@pytest.fixture
def small_demos(monkeypatch, train_config):
    """The recipes' data and evaluation with models that compile in seconds."""

    def small(name, recipe):
        config = recipe()
        augment = dataclasses.replace(config.data.augment, variants=1)
        data = dataclasses.replace(
            config.data,
            directory=train_config.data.directory,
            batch_size=16,
            augment=augment,
        )
        if name == "ruclip":
            text = dataclasses.replace(train_config.model.text, vocab_size=400)
            model = dataclasses.replace(train_config.model, text=text)
        elif name == "vqgan":
            model = dataclasses.replace(config.model, channels=8, norm_groups=4)
        else:
            model = dataclasses.replace(config.model, width=16, heads=2, layers=2)
        return dataclasses.replace(
            config, model=model, data=data, evaluators=(), evaluate_every=0, log_every=1
        )

    for name, demo in quickstart.DEMOS.items():
        recipes = {
            run: (lambda run=run, recipe=recipe: small(run, recipe))
            for run, recipe in demo.recipes.items()
        }
        generation = dataclasses.replace(demo.generation, groups=1, each=2)
        if name == "emoji":
            two = functools.partial(demo.generation.prompts, count=2)
            generation = dataclasses.replace(generation, prompts=two)
        small_demo = dataclasses.replace(demo, recipes=recipes, generation=generation)
        monkeypatch.setitem(quickstart.DEMOS, name, small_demo)


@pytest.mark.filterwarnings("ignore::rudolph_jax.text_encoding.TruncationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "emoji"])
def test_from_images_to_a_page(small_demos, data, tmp_path, capsys):
    arguments = [f"--data={data}", f"--workdir={tmp_path}", "--steps=3"]
    assert quickstart.main(arguments) == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    grid = {"digits": "captions.png", "emoji": "names.png"}[data]
    images = {
        grid, "loss-ruclip.png", "loss-vqgan.png", "loss-rudolph.png", "similarity.png",
        "reconstructions.png", "drawings.png", "drawings-reranked.png", "written-captions.png",
        "inpainting.png",
    }  # fmt: skip
    assert images <= {path.name for path in tmp_path.iterdir()}
    printed = capsys.readouterr().out
    assert "report so far: " in printed and "Still training" not in page
    titles = re.findall(r"<h2[^>]*>([^<]*)</h2>", page)
    assert titles[0] == "Drawings, chosen by ruCLIP" and len(titles) > 10
    for phase in ("ruCLIP names held-out images ...", "drawing ", "captioning ", "classifying "):
        assert f"\n{phase}" in printed
    # Baselines depend on no training: these are their real figures.
    baseline = {
        "digits": r"pixel nearest neighbour \(sees the labels\) +99.4 %",
        "emoji": r"pixel nearest neighbour: first +18.8 %",
    }[data]
    assert re.search(baseline, printed)
    assert {"digits": "99.4 %", "emoji": "18.8 %"}[data] in page
    for line in ("chosen by ruCLIP", "a held-out code, RUDOLPH", "bigram", "unigram"):
        assert line in printed
    clip = clip_jax.load(tmp_path / "ruclip" / "model")
    assert clip.processor(text="семь")["input_ids"].shape == (1, 12)
    rudolph = rudolph_jax.load(tmp_path / "rudolph" / "model", tmp_path / "vqgan" / "model")
    assert rudolph.encode_images([np.zeros((9, 9, 3), np.uint8)]).shape[0] == 1
    # The same command finds everything done and draws the page again.
    rows = (tmp_path / "rudolph" / "metrics.jsonl").read_text()
    assert [json.loads(line)["step"] for line in rows.splitlines()] == [1, 2, 3]
    if data == "digits":
        assert quickstart.main(arguments) == 0
        assert (tmp_path / "rudolph" / "metrics.jsonl").read_text() == rows


def test_the_page_is_there_after_the_first_model(small_demos, tmp_path, monkeypatch):
    real, seen = quickstart.train, {}

    def watch(config, folder):
        page = tmp_path / "report.html"
        seen[folder.name] = page.read_text("utf-8") if page.exists() else None
        if folder.name == "rudolph":
            raise KeyboardInterrupt
        return real(config, folder, jax.devices()[:1])  # one compiles sooner than eight

    monkeypatch.setattr(quickstart, "train", watch)
    with pytest.raises(KeyboardInterrupt):
        quickstart.run("digits", tmp_path, steps=1)
    assert seen["ruclip"] is None
    assert "Accuracy on" in seen["vqgan"] and "Still training: vqgan, rudolph;" in seen["vqgan"]
    assert "Still training: rudolph;" in seen["rudolph"]


def test_emoji_baseline_finds_the_twin(rng):
    """A drawing whose Twemoji twin has the same pixels is found first."""
    from experiments.data.digits_ru import encode_png

    images = rng.integers(0, 256, (6, 20, 20, 3), dtype=np.uint8)
    twins = [
        {"image": encode_png(p).read(), "style": zero_shot.TWEMOJI, "id": i}
        for i, p in enumerate(images)
    ]
    drawings = [dict(twins[i], style=1) for i in (4, 1)]
    found = zero_shot.nearest_twemoji(drawings, twins[::-1])
    assert isinstance(found, RetrievalResult)
    assert found.ranks.tolist() == [0, 0] and found.best[:, 0].tolist() == [4, 1]


def test_emoji_baseline_of_all_styles_takes_the_most_similar_image_of_a_name(rng):
    from experiments.data.digits_ru import encode_png

    pixels = rng.integers(0, 256, (4, 20, 20, 3), dtype=np.uint8)
    files = [encode_png(image).read() for image in pixels]
    others = [{"image": files[i], "id": name} for i, name in enumerate((0, 1, 0, 2))]
    drawings = [{"image": files[2], "id": 0}, {"image": files[1], "id": 2}]
    found = zero_shot.nearest_name(drawings, others)
    assert found.best[:, 0].tolist() == [0, 1] and found.best.shape == (2, 3)
    assert found.ranks[0] == 0 and found.ranks[1] > 0


def test_wrong_arguments(capsys):
    assert quickstart.main(["--data=faces"]) == 2
    assert "invalid choice: 'faces'" in capsys.readouterr().err
