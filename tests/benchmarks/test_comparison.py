from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.comparison import (
    Implementation,
    check_agreement,
    max_relative_error,
    repeats_for,
)
from clip_jax.errors import InputError

IMPLEMENTATIONS = {
    "theirs": Implementation("theirs", "float32", {}),
    "ours": Implementation("ours", "float32", {}),
    "ours bfloat16": Implementation("ours", "bfloat16", {}),
}
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


def test_errors_are_relative_to_the_standard_deviation():
    expected = [0.0, 2.0, 4.0, 6.0]
    error = max_relative_error(expected, [0.0, 2.0, 4.5, 6.0])
    assert error == pytest.approx(0.5 / np.std([0, 2, 4, 6]))


def test_each_dtype_has_its_tolerance():
    outputs = {"theirs": [0.0, 1.0], "ours": [0.0, 1.0], "ours bfloat16": [0.0, 1.04]}
    errors = check_agreement(IMPLEMENTATIONS, outputs, TOLERANCE, "features")
    assert errors["theirs"] == 0 and errors["ours bfloat16"] == pytest.approx(0.08)


@pytest.mark.parametrize("wrong", [1.04, float("nan")])
def test_outputs_that_differ_are_not_timed(wrong):
    outputs = {"theirs": [0.0, 1.0], "ours": [0.0, wrong], "ours bfloat16": [0.0, 1.0]}
    with pytest.raises(InputError, match="ours: features differ from those of theirs by"):
        check_agreement(IMPLEMENTATIONS, outputs, TOLERANCE, "features")


@pytest.mark.parametrize(("seconds", "repeats"), [(0.4, 5), (3.0, 1)])
def test_at_least_one_repeat_and_the_first_call_does_not_count(seconds, repeats):
    walls = iter([100.0, seconds])
    worker = SimpleNamespace(call=lambda task, repeats: SimpleNamespace(wall_seconds=next(walls)))
    assert repeats_for(worker, "work", 2.0) == repeats
