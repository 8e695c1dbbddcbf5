"""Ctrl-C at any line: the number of a step and its state stay together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from small_run import SmallRun

from clip_jax import InputError
from experiments.training.checkpoint import Checkpoints, abstract_state
from experiments.training.interrupts import HeldInterrupts

PATIENCE = 3600  # seconds, of all lines on a busy machine


@pytest.fixture(autouse=True)
def _heard():
    """Python's own handler, also where the tests run in a shell's background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("trials", [12, pytest.param(0, marks=pytest.mark.slow, id="all")])
def test_interrupted_at_any_line_a_run_resumes_bit_equal(tmp_path, trials):
    """States, metrics, the best checkpoint: all are those of the run that nothing disturbed."""
    child = subprocess.run(
        [sys.executable, Path(__file__).with_name("interrupt_trials.py"), tmp_path, str(trials)],
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert found["lines"] > 500
    assert len(found["trials"]) == (trials or found["lines"])
    assert [trial for trial in found["trials"] if trial["finding"]] == []
    assert {trial["saved"] for trial in found["trials"]} >= {0, 2, 4, 5}


def test_an_interrupt_between_a_step_and_its_name_waits(tmp_path):
    """The step has consumed the old state, and nobody has the new one yet."""
    run = SmallRun()
    whole = run(tmp_path / "whole")
    step = run.runner.step

    def interrupted(state, batch):
        made = step(state, batch)
        if int(made[0]["step"]) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return made

    run.runner.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    run.runner.step = step
    with Checkpoints(tmp_path / "cut" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 4
        assert int(checkpoints.restore(4, abstract_state(run.start()))["step"]) == 4
    assert run(tmp_path / "cut")["params"]["w"].tobytes() == whole["params"]["w"].tobytes()


def test_held_interrupts_come_after_the_block_once():
    before = signal.getsignal(signal.SIGINT)
    done = []
    with pytest.raises(KeyboardInterrupt), HeldInterrupts():
        with HeldInterrupts():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("inner")
        os.kill(os.getpid(), signal.SIGINT)
        done.append("outer")
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) == before
    with HeldInterrupts():
        pass  # nothing is left over


def test_an_ignored_interrupt_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with HeldInterrupts():
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_state_of_another_step_is_neither_saved_nor_restored(tmp_path):
    state = {"params": {"w": jnp.ones(4)}, "step": jnp.int32(4)}
    message = r"checkpoints/3: its state is of step 4; expected that of step 3; remove the folder"
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        with pytest.raises(InputError, match=message):
            checkpoints.save(3, state, {})
        checkpoints.save(4, state, {})
    (tmp_path / "checkpoints" / "4").rename(tmp_path / "checkpoints" / "3")
    target = abstract_state(state)
    with (
        Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints,
        pytest.raises(InputError, match=message),
    ):
        checkpoints.restore(3, target)
