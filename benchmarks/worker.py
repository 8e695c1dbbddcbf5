"""Workers in processes of their own, timed in interleaved rounds."""

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


class Reply(NamedTuple):
    """Hold what a task returned and what it cost.

    cpu_seconds: of all threads.
    peak_bytes: peak memory of the process so far; None: not known.
    """

    value: Any
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int | None


class Worker:
    """Run a module of `benchmarks.workers` in a process, which ends with the context.

    python: interpreter of its environment; None: this one.
    environment: variables besides ours.
    A request that fails raises InputError; its traceback is on stderr by then.
    """

    def __init__(
        self, module: str, python: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        python = python or sys.executable
        self.name = f"{module} ({python})"
        try:
            self._process = subprocess.Popen(
                [python, "-m", f"benchmarks.workers.{module}"],
                cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip
        except OSError as error:
            raise InputError(f"{python}: cannot be run ({error.strerror})") from error

    def call(self, task: str, **arguments: Any) -> Reply:
        """Run a task and wait for its reply."""
        assert self._process.stdin and self._process.stdout
        request = json.dumps({"task": task, "arguments": arguments})
        try:
            print(request, file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise InputError(f"{self.name}: ended during {task!r}; its traceback is above")
        return Reply(**json.loads(line))

    def kill(self) -> None:
        """End the process; a call that waits for it raises InputError."""
        self._process.kill()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.communicate()


class Timing(NamedTuple):
    """Hold medians over the rounds of the time for one repeat.

    peak_bytes: peak memory of the process; None: not known.
    """

    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int | None


def run_interleaved(
    workers: Mapping[str, Worker],
    task: str,
    repeats: Mapping[str, int],
    rounds: int,
    warmup: int = 0,
    **arguments: Any,
) -> dict[str, Timing]:
    """Time each worker once a round, so that other load on the machine disturbs all alike.

    repeats: the task's argument `repeats` by worker. The workers are warm: they have run the task.
    warmup: repeats before each timed call, for work that never waits in real use.
    """
    replies: dict[str, list[Reply]] = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            if warmup:
                worker.call(task, repeats=warmup, **arguments)
            replies[name].append(worker.call(task, repeats=repeats[name], **arguments))
    return {
        name: Timing(
            median(reply.wall_seconds for reply in found) / repeats[name],
            median(reply.cpu_seconds for reply in found) / repeats[name],
            found[-1].peak_bytes,
        )
        for name, found in replies.items()
    }
