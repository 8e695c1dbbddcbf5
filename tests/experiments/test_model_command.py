"""`python -m experiments.model` and runs that become longer or shorter on purpose."""

import dataclasses
import json
import re

import jax
import numpy as np
import pytest

import clip_jax
from clip_jax import InputError
from experiments.model import load_checkpoint, main
from experiments.train import train
from experiments.training import partitioning
from experiments.training.metrics import read_metrics

ONE = jax.devices()[:1]
BEST = "retrieval:validation/top1"


@pytest.fixture
def config(train_config):
    optim = dataclasses.replace(
        train_config.optim, ema=0.5, schedule="constant", freeze=("text/layers/0/.*",)
    )
    return dataclasses.replace(
        train_config, optim=optim, checkpoint_every=2, evaluate_every=4, keep_checkpoints=9,
        evaluators=("retrieval:validation",), best_metric=BEST,
    )  # fmt: skip


FINISHED = []


@pytest.fixture
def finished(config, tmp_path_factory):
    """(what eight steps returned, their workdir), made once."""
    if not FINISHED:
        workdir = tmp_path_factory.mktemp("run")
        FINISHED.append((train(config, workdir, ONE), workdir))
    return FINISHED[0]


def leaves(model):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(model.params)]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(other), strict=True))


def test_the_last_checkpoint_is_the_model_that_training_returned(finished, tmp_path, capsys):
    run, workdir = finished
    assert main([str(workdir), str(tmp_path / "out")]) == 0
    assert f"model: {tmp_path / 'out'}" in capsys.readouterr().out
    made = clip_jax.load(tmp_path / "out")
    assert same(made, run.model)
    assert made.processor.tokenizer.model == (workdir / "tokenizer.model").read_bytes()
    provenance = json.loads((tmp_path / "out" / "config.json").read_text())["provenance"]
    assert provenance["source"] == "experiments.model" and provenance["step"] == 8
    assert not same(load_checkpoint(workdir, ema=False), run.model)
    assert not same(load_checkpoint(workdir, 4), run.model)


def test_the_best_step_is_that_of_the_configs_metric(finished, config):
    _, workdir = finished
    values = {row["step"]: row[BEST] for row in read_metrics(workdir) if BEST in row}
    best = max(values, key=values.__getitem__)
    assert set(values) == {4, 8} and values[4] != values[8]
    assert same(load_checkpoint(workdir, "best"), load_checkpoint(workdir, best))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--step=3"], "has no checkpoint of step 3; expected one of 2, 4, 6, 8"),
        (["--step=last"], "'last' is no step; expected a number or best"),
    ],
)
def test_mistakes(finished, tmp_path, capsys, options, expected):
    assert main([str(finished[1]), str(tmp_path / "out"), *options]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_folders_that_are_no_runs(finished, tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "no checkpoints here; expected a run's checkpoints/" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([str(finished[1]), str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_a_run_becomes_longer(finished, config, tmp_path, capsys):
    """Six steps and then eight are eight at once, where the schedule does not depend on them."""
    run, _ = finished
    train(dataclasses.replace(config, steps=6), tmp_path, ONE)
    longer = train(config, tmp_path, ONE)
    assert "config.steps was 6 and is 8: from step 6 on learning rates" in capsys.readouterr().err
    assert same(longer.model, run.model)


def test_a_run_becomes_shorter_but_not_than_it_is(config, tmp_path, monkeypatch):
    """Ends an interrupted run at the step that it has reached."""
    real, calls = partitioning.put_batch, []

    def interrupt_at_seventh(batch, mesh):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return real(batch, mesh)

    with monkeypatch.context() as patch:
        patch.setattr(partitioning, "put_batch", interrupt_at_seventh)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path, ONE)
    with pytest.raises(InputError, match=re.escape("config.steps is 5, but the run has reached")):
        train(dataclasses.replace(config, steps=5), tmp_path, ONE)
    ended = train(dataclasses.replace(config, steps=6), tmp_path, ONE)
    assert same(ended.model, load_checkpoint(tmp_path, 6))
