"""Evaluation sets, probes and retrieval while a model trains."""

import dataclasses

import pytest

from clip_jax import InputError
from experiments.evaluation.evaluators import make_evaluators
from experiments.evaluation.sets import MissingSet
from experiments.metrics import read_metrics
from experiments.train import train


def test_a_run_asks_for_them_by_name(train_config, tmp_path):
    names = (
        "zero-shot:digits_ru", "linear-probe:validation", "linear-probe:digits_ru:validation",
        "retrieval:validation",
    )  # fmt: skip
    config = dataclasses.replace(
        train_config, steps=2, checkpoint_every=0, evaluate_every=2, evaluators=names
    )
    run = train(config, tmp_path)
    rows = read_metrics(tmp_path)
    found = {key: value for row in rows for key, value in row.items() if key.startswith(names)}
    ways = {f"{way}top{k}" for way in ("", "pictures_") for k in (1, 5, 10)}
    assert set(found) == {
        "zero-shot:digits_ru/accuracy", "linear-probe:validation/accuracy",
        "linear-probe:digits_ru:validation/accuracy",
        *(f"retrieval:validation/{way}" for way in ways),
    }  # fmt: skip
    # The same pictures and features by two ways, whose batches differ.
    by_split = found["linear-probe:validation/accuracy"]
    by_set = found["linear-probe:digits_ru:validation/accuracy"]
    assert by_split == pytest.approx(by_set, abs=0.02) and by_split > 0.3
    evaluate = make_evaluators(config)["zero-shot:digits_ru"]
    assert evaluate(run.model)["accuracy"] == found["zero-shot:digits_ru/accuracy"]


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
