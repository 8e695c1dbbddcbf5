import sys
from types import SimpleNamespace

import pytest

from benchmarks.peer import Peer, alternate
from clip_jax.errors import InputError

ECHO = """
import sys
from benchmarks.peers.serve import serve

def fail(): raise ValueError("no such weights")

turns = []
def work(count):
    print("noise that is no answer")
    turns.append(count)
    return turns
serve({"work": work, "fail": fail})
"""


@pytest.fixture
def echo(tmp_path):
    """A Python that runs ECHO, whatever module it is asked for."""
    program = tmp_path / "echo.py"
    program.write_text(ECHO)
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH=. exec {sys.executable} {program} "$@"\n')
    python.chmod(0o755)
    return str(python)


def test_a_peer_answers_each_order_and_what_else_it_prints_is_no_answer(echo):
    with Peer("any", echo) as peer:
        assert peer.ask("work", count=3).value == [3]
        answer = peer.ask("work", count=4)
    assert answer.value == [3, 4]
    assert answer.wall > 0 and answer.processor > 0
    assert answer.peak is None or 1e6 < answer.peak < 1e9


def test_a_peer_that_fails_is_told_in_one_line(echo):
    with Peer("any", echo) as peer, pytest.raises(InputError, match="ended while it was to fail"):
        peer.ask("fail")


def test_a_python_that_is_not_there_is_told():
    with pytest.raises(InputError, match="/nowhere/python: cannot be run"):
        Peer("any", "/nowhere/python")


def test_medians_are_of_a_unit_and_peers_take_turns():
    order = []

    def peer(name, walls):
        walls = iter(walls)

        def ask(task, count):
            order.append(name)
            wall = next(walls)
            return SimpleNamespace(wall=wall, processor=2 * wall, value=None, peak=int(wall))

        return SimpleNamespace(ask=ask)

    peers = {"a": peer("a", [6, 2, 4]), "b": peer("b", [1, 9, 5])}
    timings = alternate(peers, "work", {"a": 2, "b": 5}, rounds=3)
    assert order == ["a", "b"] * 3
    assert timings["a"] == (2.0, 4.0, 4) and timings["b"] == (1.0, 2.0, 5)


def test_what_is_done_before_a_turn_is_not_timed():
    turns = []

    def ask(task, count):
        turns.append(count)
        return SimpleNamespace(wall=count, processor=count, value=None, peak=None)

    timings = alternate({"a": SimpleNamespace(ask=ask)}, "work", {"a": 2}, rounds=2, before=7)
    assert turns == [7, 2, 7, 2] and timings["a"] == (1.0, 1.0, None)
