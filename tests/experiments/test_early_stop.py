"""Runs that end when validation gets no better, and models of their best step."""

import dataclasses
import math

import jax
import numpy as np
import pytest
from small_run import SmallRun

from clip_jax import InputError
from experiments.config.run import check
from experiments.model import load_checkpoint
from experiments.train import train
from experiments.training import loop
from experiments.training.metrics import read_metrics

METRIC = "score:validation/value"


def run(tmp_path, scores, **changes):
    """Evaluates to `scores`, one a step; returns the steps that were evaluated."""
    given = iter(scores)
    evaluators = {"score:validation": lambda params: {"value": next(given)}}
    small = SmallRun(
        evaluators=evaluators, steps=len(scores), evaluate_every=1, checkpoint_every=1,
        best_metric=METRIC, keep_checkpoints=1, **changes,
    )  # fmt: skip
    small(tmp_path)
    return [row["step"] for row in read_metrics(tmp_path) if METRIC in row]


@pytest.mark.parametrize(
    ("scores", "changes", "last"),
    [
        ([1, 3, 2, 2, 5, 6], {"early_stop": 2}, 4),
        ([1, 3, 2, 4, 3, 5], {"early_stop": 2}, 6),
        ([3, 3, 3, 9], {"early_stop": 2}, 3),  # an equal score is no better one
        ([3, 1, 2, 0, 4, 4], {"early_stop": 2, "best_mode": "lowest"}, 6),
        ([math.nan, 1, math.nan, 0, 9], {"early_stop": 2}, 4),
        ([5, 4, 3, 2], {}, 4),
    ],
)
def test_the_last_step(tmp_path, monkeypatch, scores, changes, last):
    lines = []
    monkeypatch.setattr(loop.Progress, "log", lambda self, line: lines.append(line))
    assert run(tmp_path, scores, **changes) == list(range(1, last + 1))
    assert any("stopped early; best" in line for line in lines) == (last < len(scores))


def test_a_run_that_stopped_early_stays_ended(tmp_path):
    """The same command takes no further step; a new patience does."""
    assert run(tmp_path, [5, 4, 3, 9, 9, 9], early_stop=2) == [1, 2, 3]
    assert run(tmp_path, [0] * 6, early_stop=2) == [1, 2, 3]
    assert run(tmp_path, [6, 0, 0, 0, 0, 0], early_stop=3) == [1, 2, 3, 4, 5, 6]


def test_the_model_of_the_best_step(train_config, tmp_path):
    metric = "retrieval:validation/top1"
    config = dataclasses.replace(
        train_config, evaluators=("retrieval:validation",), evaluate_every=2, checkpoint_every=2,
        best_metric=metric, best_mode="lowest", final_model="best", keep_checkpoints=9,
    )  # fmt: skip
    model = train(config, tmp_path, jax.devices()[:1]).model
    values = {row["step"]: row[metric] for row in read_metrics(tmp_path) if metric in row}
    best = min(values, key=values.__getitem__)
    assert best != 8 and len(values) == 4
    leaves = map(jax.tree.leaves, (model.params, load_checkpoint(tmp_path, best).params))
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("changes", [{"early_stop": 1}, {"final_model": "best"}])
def test_both_need_a_metric(train_config, changes):
    with pytest.raises(InputError, match="config.best_metric is ''; expected a metric of an eval"):
        check(dataclasses.replace(train_config, **changes))
