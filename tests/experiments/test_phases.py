"""A run is never silent before its first step."""

import dataclasses
import io
import re

import jax
import pytest

from experiments.train import train
from experiments.training import phases
from experiments.training.phases import Phases, with_progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(phases.time, "monotonic", lambda: now[0])
    return now


def test_long_phases_say_what_they_took(clock):
    stream = io.StringIO()
    phase = Phases(stream=stream)
    phase("data")
    clock[0] += 0.5
    phase("rendering")
    clock[0] += 12.34
    phase.end()
    phase.end()
    assert stream.getvalue() == "data ...\nrendering ...\nrendering: 12.3 s\n"
    Phases(quiet=True, stream=stream)("nothing")
    assert "nothing" not in stream.getvalue()


def test_progress_is_a_line_every_ten_seconds_off_a_terminal(clock):
    stream, seen = io.StringIO(), []
    for item in with_progress(range(1000, 1008), "rendering", stream):
        seen.append(item)
        clock[0] += 4.0
    assert seen == list(range(1000, 1008))
    assert stream.getvalue() == "rendering: 3 of 8\nrendering: 6 of 8\n"


def test_training_names_all_that_comes_before_the_first_step(train_config, tmp_path, capsys):
    train(train_config, tmp_path, jax.devices()[:1])
    lines = capsys.readouterr().err.splitlines()
    begun = [line.removesuffix(" ...") for line in lines if line.endswith(" ...")]
    assert re.fullmatch(r"training a vocabulary of 128 pieces from \d+ rows", begun[0])
    assert begun[1] == "initial parameters"
    assert re.fullmatch(r"rendering \d+ images", begun[2])
    assert begun[3] == "compiling the step for 1 devices"
    watch = f"to watch: tensorboard --logdir={tmp_path / 'tensorboard'}"
    assert watch in lines and list((tmp_path / "tensorboard").iterdir())
    alone = dataclasses.replace(train_config, steps=train_config.steps + 1, report_to=())
    train(alone, tmp_path, jax.devices()[:1])
    lines = capsys.readouterr().err.splitlines()
    assert watch not in lines and not any("vocabulary" in line for line in lines)
