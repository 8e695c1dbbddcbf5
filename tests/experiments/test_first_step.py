"""Each process compiles its first step, then all begin it; a step shares the signal to one."""

import dataclasses

import jax
import numpy as np
import pytest
from small_run import SmallRun, rows_of

from experiments.distributed.processes import Processes
from experiments.training import partitioning
from experiments.training.runners import RUNNERS
from experiments.training.state import initial_state
from experiments.training.step import SIGNAL


@pytest.fixture(scope="module")
def run():
    return SmallRun(steps=2, checkpoint_every=0)


def test_all_processes_meet_between_compilation_and_the_first_step(run, tmp_path, monkeypatch):
    seen = []

    def noted(name, real):
        def note(*args):
            seen.append(name)
            return real(*args)

        return note

    monkeypatch.setattr(run.runner, "compile", noted("compile", run.runner.compile))
    monkeypatch.setattr(run.runner, "step", noted("step", run.runner.step))
    monkeypatch.setattr(Processes, "barrier", noted("barrier", Processes.barrier))
    run(tmp_path)
    assert seen == ["compile", "barrier", "step", "step"]


def test_what_was_compiled_ahead_is_what_runs():
    run, compilations = SmallRun(), []

    def count(name, seconds, **_):
        if "backend_compile" in name:
            compilations.append(name)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        with jax.set_mesh(run.mesh):
            state, batch = run.start(), run.runner.shard_batch(rows_of(1))
            del compilations[:]
            run.runner.compile(state, batch)
            assert len(compilations) == 1
            run.runner.step(state, batch)
            assert len(compilations) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(count)


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_a_step_takes_the_largest_signal_and_nothing_else_of_it(run, parallel):
    config = dataclasses.replace(run.config, parallel=parallel)
    mesh = partitioning.make_mesh(config.mesh, jax.devices()[:2])
    found = {}
    with partitioning.mesh_context(mesh, parallel):
        for signal in (None, 0, 15):
            state, shardings = initial_state(config, run.objective, run.optimizer, mesh)
            runner = RUNNERS[parallel](config, run.objective, run.optimizer, mesh, shardings)
            batch = dict(runner.shard_batch(rows_of(1), signal))
            if signal:  # of the second device alone, as of another process
                shared = np.zeros(batch[SIGNAL].shape, np.int32)
                shared[-1] = signal
                place = getattr(batch[SIGNAL], "sharding", None)
                batch[SIGNAL] = shared if place is None else jax.device_put(shared, place)
            after, metrics = runner.step(state, batch)
            metrics = jax.device_get(metrics)
            assert (SIGNAL in metrics) == (signal is not None)
            assert metrics.pop(SIGNAL, None) == signal
            found[signal] = (metrics, np.asarray(after["params"]["w"]))
    for signal in (0, 15):
        # Two programs: a few roundings of float32.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found[signal], found[None]
        )
