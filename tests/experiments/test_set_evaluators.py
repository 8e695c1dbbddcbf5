"""Evaluation sets, probes and retrieval while a model trains."""

import dataclasses

import jax
import pytest

from clip_jax import InputError
from experiments.evaluation.during_training.evaluators import make_evaluators
from experiments.evaluation.sets import MissingSet
from experiments.train import train
from experiments.training.metrics import read_metrics


def run_with(config, workdir, *names):
    """The trained run's config, model and what these evaluators wrote."""
    config = dataclasses.replace(
        config, steps=2, checkpoint_every=0, evaluate_every=2, evaluators=names
    )
    model = train(config, workdir, jax.devices()[:1]).model  # one compiles sooner than eight
    rows = read_metrics(workdir)
    found = {key: value for row in rows for key, value in row.items() if key.startswith(names)}
    return config, model, found


def test_a_run_asks_for_them_by_name(train_config, tmp_path):
    names = "zero-shot:digits_ru", "retrieval:validation"
    config, model, found = run_with(train_config, tmp_path, *names)
    ways = {f"{way}top{k}" for way in ("", "pictures_") for k in (1, 5, 10)} | {"mean_recall"}
    expected = {"zero-shot:digits_ru/accuracy", *(f"retrieval:validation/{way}" for way in ways)}
    assert set(found) == expected
    evaluate = make_evaluators(config)["zero-shot:digits_ru"]
    assert evaluate(model)["accuracy"] == found["zero-shot:digits_ru/accuracy"]
    assert list((tmp_path / "images").rglob("*.png")) == [
        tmp_path / "images" / "zero-shot-digits_ru" / "confusion" / f"{config.steps:08}.png"
    ]


@pytest.mark.slow
def test_probes_during_training(train_config, tmp_path):
    """The same images by two ways, whose batches differ."""
    names = "linear-probe:validation", "linear-probe:digits_ru:validation"
    # The set's own probe learns from "train".
    data = dataclasses.replace(train_config.data, split="train")
    config = dataclasses.replace(train_config, data=data)
    *_, found = run_with(config, tmp_path, *names)
    by_split, by_set = (found[f"{name}/accuracy"] for name in names)
    assert by_split == pytest.approx(by_set, abs=0.02) and by_split > 0.3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zero-shot:cifar10", "cifar10: not in .*nowhere; prepare it"),
        ("linear-probe:mnist", "mnist: not in .*nowhere; prepare it"),
        ("zero-shot:digits_ru:nowhere", "has no split 'nowhere'"),
        ("linear-probe:digits_ru:test:more", "expected TASK:SET or TASK:SET:SPLIT"),
        ("retrieval:digits_ru", "with a task of zero-shot, linear-probe"),
        ("linear-probe:nowhere", "has no split 'nowhere'"),
    ],
)
def test_what_is_missing_is_told_before_training(train_config, tmp_path, name, message):
    config = dataclasses.replace(
        train_config, evaluators=(name,), evaluation_sets=str(tmp_path / "nowhere")
    )
    with pytest.raises(InputError, match=message) as caught:
        make_evaluators(config)
    assert isinstance(caught.value, MissingSet) == ("not in" in message)
    assert "\n" not in str(caught.value)
