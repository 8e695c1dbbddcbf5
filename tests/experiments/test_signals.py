"""SIGTERM wherever it may come: in compilation, a step, an evaluation and a save."""

import dataclasses
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import train as train_module
from experiments.cli import exit_status
from experiments.cli.exit_status import SAVED, TERMINATED, Stopped
from experiments.distributed.preemption import PreemptionHandler
from experiments.evaluation.during_training import evaluators
from experiments.train import train
from experiments.training.checkpoint import Checkpoints
from experiments.training.metrics import read_metrics


def on_one_device(config, folder):
    return train(config, folder, devices=jax.devices()[:1])


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    made = {}

    def run(config):
        if config not in made:
            folder = tmp_path_factory.mktemp("undisturbed")
            made[config] = (on_one_device(config, folder), read_metrics(folder))
        return made[config]

    return run


@pytest.fixture
def config(train_config):
    return dataclasses.replace(
        train_config, steps=5, checkpoint_every=2, evaluate_every=2,
        evaluators=("retrieval:validation",),
    )  # fmt: skip


def in_step(patch):
    """While step 3 is handed over."""
    real, calls = train_module.partitioning.put_batch, []

    def put(batch, mesh):
        calls.append(1)
        if len(calls) == 3:
            terminate()
        return real(batch, mesh)

    patch.setattr(train_module.partitioning, "put_batch", put)
    return 3


def in_evaluation(patch):
    """Interrupt at step 2; none of its values is written."""
    real = evaluators.retrieve_both

    def retrieve_both(*args):
        terminate()
        return real(*args)

    patch.setattr(evaluators, "retrieve_both", retrieve_both)
    return 2


def in_save(patch):
    """While step 2 is written."""
    real = Checkpoints.save

    def save(self, step, *args):
        real(self, step, *args)
        terminate()

    patch.setattr(Checkpoints, "save", save)
    return 2


@pytest.mark.parametrize(
    "come",
    [in_step, *(pytest.param(come, marks=pytest.mark.slow) for come in (in_evaluation, in_save))],
)
def test_the_last_finished_step_is_saved_and_the_run_goes_on_bit_equal(
    undisturbed, config, tmp_path, monkeypatch, come
):
    expected, metrics = undisturbed(config)
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        done = come(patch)
        with pytest.raises(Stopped) as stopped:
            on_one_device(config, tmp_path)
    assert stopped.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) == handler
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == done
    assert not (tmp_path / "model").exists()

    resumed = on_one_device(config, tmp_path)
    jax.tree.map(np.testing.assert_array_equal, resumed.model.params, expected.model.params)
    # Each step's row once, and the evaluation that was cut short is made up for.
    assert by_step(read_metrics(tmp_path)) == by_step(metrics)


def by_step(rows):
    merged = {}
    for row in rows:
        assert not merged.get(row["step"], {}).keys() & (row.keys() - {"step"})
        merged.setdefault(row["step"], {}).update(row)
    return merged


CHILD = """
import sys, time
from experiments.distributed.processes import Processes
from experiments.distributed.preemption import PreemptionHandler
with PreemptionHandler(Processes()) as stopping:
    stopping.nothing_to_save = sys.argv[1] == "compiling"
    print("there", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize(("state", "signals"), [("compiling", 1), ("stepping", 2)])
def test_at_once_while_there_is_nothing_to_save_and_the_second_time(state, signals):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, state],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "there\n"
        for _ in range(signals - 1):
            child.send_signal(signal.SIGTERM)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0.5)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == TERMINATED
    assert "nothing more is saved" in errors


class Silent:
    """Stands for `Processes` of one among many; shows where the handler asks them something."""

    count, index = 512, 3

    def __getattr__(self, name):
        raise AssertionError(f"{name} of the coordination service")


def test_several_processes_agree_without_the_coordination_service():
    with PreemptionHandler(Silent()) as stopping, PreemptionHandler(Silent()) as other:
        stopping.nothing_to_save = other.nothing_to_save = False
        for _ in range(3):
            assert stopping.signal_to_share() == 0
            stopping.agree(0)
            assert not stopping.should_stop()
        stopping._ask(signal.SIGTERM, None)
        # One's own signal ends nothing until a step has brought it to all.
        assert not stopping.should_stop() and stopping.signal_to_share() == signal.SIGTERM
        for each in (stopping, other):
            each.agree(signal.SIGTERM)
            assert each.should_stop() and each.stopped().args == (signal.SIGTERM,)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Stopped(signal.SIGTERM), SAVED),
        (Stopped(signal.SIGINT), exit_status.INTERRUPTED),
        (KeyboardInterrupt(), exit_status.INTERRUPTED),
        (exit_status.StorageError("full"), exit_status.STORAGE),
        (exit_status.DivergedError("nan"), exit_status.DIVERGED),
    ],
)
def test_exit_statuses_tell_the_ends_apart(error, status, capsys):
    def work():
        raise error

    assert exit_status.exit_status(work) == status
    assert capsys.readouterr().err.count("\n") <= 1
