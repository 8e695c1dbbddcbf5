"""Peers in processes of their own, and rounds in which each takes its turn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from clip_jax.errors import InputError

ROOT = Path(__file__).parent.parent


class Answer(NamedTuple):
    """value: of the task. wall, processor: its seconds, the latter of all threads. peak: the most
    bytes of memory that the process has had so far; None: not known.
    """

    value: Any
    wall: float
    processor: float
    peak: int | None


class Peer:
    """A process that serves a module of `benchmarks.peers`; as a context manager it is ended.

    python: of its environment; None: this one. variables: of its environment, besides ours.
    An order that it cannot follow raises InputError; its trace is on stderr by then.
    """

    def __init__(
        self, module: str, python: str | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        python = python or sys.executable
        self.name = f"{module} ({python})"
        try:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.peers.{module}"],
                cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, **(variables or {})},
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"{python}: cannot be run ({error.strerror})") from error

    def ask(self, task: str, **arguments: Any) -> Answer:
        """Waits for the answer."""
        assert self._process.stdin and self._process.stdout
        order = json.dumps({"task": task, "arguments": arguments})
        try:
            print(order, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise InputError(f"{self.name}: ended while it was to {task}; its trace is above")
        return Answer(**json.loads(line))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class Timing(NamedTuple):
    """Medians over the rounds: seconds of wall and of processor time for one unit of work.

    peak: the most bytes of memory that the process has had; None: not known.
    """

    wall: float
    processor: float
    peak: int | None


def alternate(
    peers: Mapping[str, Peer],
    task: str,
    units: Mapping[str, float],
    rounds: int,
    before: int = 0,
    **arguments: Any,
) -> dict[str, Timing]:
    """Each peer's turn after the other's, `rounds` times: what disturbs them disturbs all alike.

    units: of work in a turn, by peer, the task's argument `count`, besides those given. The peers
        are warm: they have done the task before.
    before: units that each does before a turn, not timed: for work that never waits in real life.
    """
    answers: dict[str, list[Answer]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name, peer in peers.items():
            if before:
                peer.ask(task, count=before, **arguments)
            answers[name].append(peer.ask(task, count=units[name], **arguments))
    return {
        name: Timing(
            median(answer.wall for answer in found) / units[name],
            median(answer.processor for answer in found) / units[name],
            found[-1].peak,
        )
        for name, found in answers.items()
    }
