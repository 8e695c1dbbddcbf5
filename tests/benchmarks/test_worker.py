import sys
from types import SimpleNamespace

import pytest

from benchmarks.worker import Worker, run_interleaved
from clip_jax.errors import InputError

ECHO = """
import sys
from benchmarks.workers.serve import serve

def fail(): raise ValueError("no such weights")

calls = []
def work(repeats):
    print("noise that is no reply")
    calls.append(repeats)
    return calls
serve({"work": work, "fail": fail})
"""


@pytest.fixture
def echo(tmp_path):
    """Make a Python interpreter that runs ECHO, whatever module it is given."""
    program = tmp_path / "echo.py"
    program.write_text(ECHO)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH=. exec {sys.executable} {program} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_a_worker_replies_to_each_request_and_its_prints_are_no_replies(echo):
    with Worker("any", echo) as worker:
        assert worker.call("work", repeats=3).value == [3]
        reply = worker.call("work", repeats=4)
    assert reply.value == [3, 4]
    assert reply.wall_seconds > 0 and reply.cpu_seconds > 0
    assert reply.peak_bytes is None or 1e6 < reply.peak_bytes < 1e9


def test_a_worker_that_fails_is_named_in_one_line(echo):
    with Worker("any", echo) as worker, pytest.raises(InputError, match="ended during 'fail'"):
        worker.call("fail")


def test_a_missing_interpreter_is_named():
    with pytest.raises(InputError, match="/nowhere/python: cannot be run"):
        Worker("any", "/nowhere/python")


def test_medians_are_of_one_repeat_and_workers_are_interleaved():
    order = []

    def worker(name, walls):
        walls = iter(walls)

        def call(task, repeats):
            order.append(name)
            wall = next(walls)
            return SimpleNamespace(
                wall_seconds=wall, cpu_seconds=2 * wall, value=None, peak_bytes=int(wall)
            )

        return SimpleNamespace(call=call)

    workers = {"a": worker("a", [6, 2, 4]), "b": worker("b", [1, 9, 5])}
    timings = run_interleaved(workers, "work", {"a": 2, "b": 5}, rounds=3)
    assert order == ["a", "b"] * 3
    assert timings["a"] == (2.0, 4.0, 4) and timings["b"] == (1.0, 2.0, 5)


def test_warmup_is_not_timed():
    calls = []

    def call(task, repeats):
        calls.append(repeats)
        return SimpleNamespace(
            wall_seconds=repeats, cpu_seconds=repeats, value=None, peak_bytes=None
        )

    workers = {"a": SimpleNamespace(call=call)}
    timings = run_interleaved(workers, "work", {"a": 2}, rounds=2, warmup=7)
    assert calls == [7, 2, 7, 2] and timings["a"] == (1.0, 1.0, None)
