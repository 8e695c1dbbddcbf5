"""NaN, infinity, slow steps, clocks, memory: what a run does about each is stated and shown."""

import dataclasses
import math
import os
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_run import CONFIG, SmallRun, rows_of, same

from experiments.cli.exit_status import DivergedError
from experiments.sweeping.throughput import steps_per_second
from experiments.train import train
from experiments.training import loop, partitioning
from experiments.training.checkpoint import Checkpoints
from experiments.training.metrics import read_metrics
from experiments.training.step_times import StepTimes

SKIP = dataclasses.replace(CONFIG.optim, skip_nonfinite=1)


def exponential(params, batch, now):
    """Finite at exp(88) = 1.65e38; 64 / 8 times as much is infinite in bfloat16."""
    w = params["w"].astype(jnp.bfloat16)
    slope = 64 * (w - jax.lax.stop_gradient(w)).sum()
    return jnp.mean(jnp.exp(batch["x"][:, 0].astype(jnp.bfloat16) + slope)), {}


def nan_at_third(step):
    rows = rows_of(step)
    if step == 3:
        rows["x"][2, 1] = np.nan
    return rows


def infinite_at_third(step):
    rows = rows_of(step)
    if step == 3:
        rows["x"][5, 0] = 88.0
    return rows


FAULTS = {
    "a NaN batch": ({"rows": nan_at_third}, r"step 3: loss is nan, gradient norm nan"),
    "an infinite gradient in bfloat16": (
        {"rows": infinite_at_third, "loss": exponential},
        r"step 3: loss is 2\.\d+e\+37, gradient norm inf",
    ),
}
each_fault = pytest.mark.parametrize(("fault", "finding"), FAULTS.values(), ids=FAULTS)


@pytest.fixture
def said(monkeypatch):
    """The lines that runs print."""
    lines = []
    monkeypatch.setattr(loop.Progress, "log", lambda self, line: lines.append(line))
    return lines


@each_fault
def test_ends_the_run_and_nothing_of_it_is_saved(tmp_path, fault, finding):
    run = SmallRun(**fault)
    for _ in range(2):  # the same command comes to the same end
        with pytest.raises(DivergedError, match=finding) as caught:
            run(tmp_path)
        assert f"last good checkpoint: {tmp_path}/checkpoints/2;" in str(caught.value)
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
        assert all(math.isfinite(row["train/loss"]) for row in read_metrics(tmp_path))


@each_fault
def test_is_left_out_where_steps_may_be_and_resumes_bit_equal(tmp_path, fault, finding, said):
    run = SmallRun(**fault, optim=SKIP, keep_checkpoints=5, checkpoint_every=1)
    seen = []
    step = run.runner.step

    def watched(state, batch):
        after, metrics = step(state, batch)
        kept = {name: after[name] for name in ("params", "opt_state", "ema")}
        seen.append((jax.device_get(kept), int(after["step"]), int(after["skipped"])))
        return after, metrics

    run.runner.step = watched
    last = run(tmp_path)
    assert [(number, skipped) for _, number, skipped in seen] == [
        (1, 0), (2, 0), (3, 1), (4, 1), (5, 1),
    ]  # fmt: skip
    before, left_out, after = (seen[i][0] for i in (1, 2, 3))
    assert same(left_out, before) and not same(after, before)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last["params"]))
    # From the very step that was left out, whose number is one more all the same.
    for step_after in (4, 5):
        for file in sorted((tmp_path / "checkpoints" / str(step_after)).rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        (tmp_path / "checkpoints" / str(step_after)).rmdir()
    assert same(run(tmp_path), last)
    assert any(line.endswith("it is left out, 1 so far") for line in said)


class Clock:
    """Seconds that a test sets."""

    def __init__(self):
        self.now = 50.0

    def __call__(self):
        return self.now


def test_the_first_slow_step_in_a_row_is_told_with_its_time_and_the_median():
    clock = Clock()
    times = StepTimes(clock)
    told = {}

    def take(step, seconds):
        clock.now += seconds
        if line := times.done(step):
            told[step] = line

    take(1, 300.0)  # compiles
    for step in range(2, 31):
        take(step, 0.4 + step % 3 / 10)
    take(31, 1.4)  # less than three medians
    assert told == {}
    take(32, 4.2)
    take(33, 4.2)  # of the same row
    take(34, 0.5)
    times.pause()
    take(35, 60.0)  # an evaluation
    take(36, 9.0)
    assert told == {
        32: "step 32: warning: took 4.2 s; the median of the 30 steps before is 0.5 s",
        36: "step 36: warning: took 9.0 s; the median of the 33 steps before is 0.5 s",
    }


def test_milliseconds_are_no_jump():
    clock = Clock()
    times = StepTimes(clock)
    for step in range(1, 40):
        clock.now += 0.5 if step == 30 else 0.005
        assert times.done(step) is None


def test_a_run_tells_of_a_slow_step(tmp_path, monkeypatch, said):
    clock = Clock()
    monkeypatch.setattr(loop, "StepTimes", partial(StepTimes, clock))

    def rows(step):
        # Step 15 is recorded while step 16 runs.
        clock.now += 30.0 if step == 16 else 0.5
        return rows_of(step)

    SmallRun(rows=rows, steps=18, checkpoint_every=0)(tmp_path)
    lines = [line for line in said if "warning" in line]
    assert lines == ["step 15: warning: took 30.0 s; the median of the 13 steps before is 0.5 s"]


def test_a_system_clock_that_goes_back_an_hour_changes_nothing(tmp_path, monkeypatch):
    """Within a run, and between its first part and the one that resumes it."""
    whole = SmallRun(steps=8)(tmp_path / "whole")
    clock = {"back": 0.0}
    for name, scale in (("time", 1), ("time_ns", 10**9)):
        real = getattr(time, name)
        monkeypatch.setattr(
            time, name, lambda real=real, scale=scale: real() - type(real())(clock["back"] * scale)
        )

    def rows(step):
        clock["back"] = 3600.0 * (step >= 4)
        if step == 6 and not (tmp_path / "run" / "checkpoints" / "5").exists():
            clock["back"] = 7200.0
            raise KeyboardInterrupt
        return rows_of(step)

    run = SmallRun(rows=rows, steps=8)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    (first,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert same(run(tmp_path / "run"), whole)
    assert read_metrics(tmp_path / "run") == read_metrics(tmp_path / "whole")
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 8
        kept = {path.name for path in checkpoints.folder.iterdir()}
    assert kept == {"6", "8"}
    # Steps a second are those of the second part, whose file seems older.
    (second,) = set((tmp_path / "run" / "tensorboard").iterdir()) - {first}
    os.utime(second, (0, 0))
    rate = steps_per_second(tmp_path / "run")
    second.unlink()
    assert rate > 0 and rate != steps_per_second(tmp_path / "run") > 0


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(memory, warm):
    """Bytes between the halves' means of what was measured after the warm-up."""
    first, second = np.array_split(np.array(memory[warm:], np.float64), 2)
    return second.mean() - first.mean()


def test_memory_is_flat_over_steps(tmp_path):
    memory, arrays = [], []

    def rows(step):
        memory.append(resident_bytes())
        arrays.append(len(jax.live_arrays()))
        return rows_of(step)

    SmallRun(rows=rows, steps=220, checkpoint_every=40)(tmp_path)
    # Steps that are not recorded and checkpoints that are not written yet hold some.
    assert max(arrays[120:]) < max(arrays[20:120]) + 10
    assert growth(memory, 60) < 8e6


@pytest.mark.slow
def test_memory_is_flat_over_a_thousand_steps_of_training(train_config, tmp_path, monkeypatch):
    real, memory = partitioning.put_batch, []

    def put(batch, mesh):
        memory.append(resident_bytes())
        return real(batch, mesh)

    monkeypatch.setattr(partitioning, "put_batch", put)
    config = dataclasses.replace(
        train_config, steps=1000, checkpoint_every=100, log_every=1,
        data=dataclasses.replace(train_config.data, log_ids=True),
    )  # fmt: skip
    train(config, tmp_path, jax.devices()[:1])
    print([round(value / 1e6) for value in memory[::100]], growth(memory, 200))
    assert len(memory) == 1000 and growth(memory, 200) < 16e6
