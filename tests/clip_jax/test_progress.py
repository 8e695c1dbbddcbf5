"""Lines of a phase that has no count."""

import io
import time

import pytest

from clip_jax import progress
from clip_jax.progress import elapsed_lines


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 0.05)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.05)


def until(happens):
    end = time.monotonic() + 60
    while not happens() and time.monotonic() < end:
        time.sleep(0.01)


def test_a_long_phase_says_that_it_runs_and_ends_with_the_block():
    stream = io.StringIO()
    with pytest.raises(KeyError), elapsed_lines("compiling", stream=stream):
        until(lambda: stream.getvalue().count("\n") >= 2)
        raise KeyError
    written = stream.getvalue()
    assert written.startswith("compiling: 0 s so far\n") and written.count("\n") >= 2
    time.sleep(0.2)
    assert stream.getvalue() == written


def test_a_quiet_one_and_a_short_one_say_nothing(monkeypatch):
    stream = io.StringIO()
    with elapsed_lines("compiling", quiet=True, stream=stream):
        time.sleep(0.2)
    monkeypatch.setattr(progress, "FIRST_LINE_SECONDS", 60.0)
    with elapsed_lines("compiling", stream=stream):
        pass
    assert stream.getvalue() == ""
