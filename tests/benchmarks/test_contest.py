from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.contest import Contender, agreed, count_of, drift
from clip_jax.errors import InputError

CONTENDERS = {
    "theirs": Contender("theirs", "float32", {}),
    "ours": Contender("ours", "float32", {}),
    "ours bfloat16": Contender("ours", "bfloat16", {}),
}
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}


def test_drift_is_a_share_of_the_spread():
    expected = [0.0, 2.0, 4.0, 6.0]
    assert drift(expected, [0.0, 2.0, 4.5, 6.0]) == pytest.approx(0.5 / np.std([0, 2, 4, 6]))


def test_each_dtype_has_its_tolerance():
    found = {"theirs": [0.0, 1.0], "ours": [0.0, 1.0], "ours bfloat16": [0.0, 1.04]}
    drifts = agreed(CONTENDERS, found, TOLERANCE, "features")
    assert drifts["theirs"] == 0 and drifts["ours bfloat16"] == pytest.approx(0.08)


@pytest.mark.parametrize("wrong", [1.04, float("nan")])
def test_what_differs_is_not_timed(wrong):
    found = {"theirs": [0.0, 1.0], "ours": [0.0, wrong], "ours bfloat16": [0.0, 1.0]}
    with pytest.raises(InputError, match="ours: features differ from those of theirs by"):
        agreed(CONTENDERS, found, TOLERANCE, "features")


@pytest.mark.parametrize(("seconds", "count"), [(0.4, 5), (3.0, 1)])
def test_a_turn_is_at_least_one_and_not_of_the_first(seconds, count):
    walls = iter([100.0, seconds])
    peer = SimpleNamespace(ask=lambda task, count: SimpleNamespace(wall=next(walls)))
    assert count_of(peer, "work", 2.0) == count
