"""Ends every process of a run where one of them does not come along, and says which."""

from __future__ import annotations

import faulthandler
import sys
import threading
import time

import jax

from experiments.cli.exit_status import LEFT_BEHIND
from experiments.distributed.processes import Processes, exit_process


class Watchdog:
    """Publishes the step that each process has reached; use as a context manager.

    A collective waits for ever for a process that hangs or is gone, so no process finishes a step
    that one has not begun: what counts is who has begun it. A process that began a step waits
    `seconds` for the others to begin it too. Threads do it: they run while a device computes.
    """

    def __init__(self, processes: Processes, seconds: float) -> None:
        self._processes, self._seconds = processes, seconds
        self._tick = min(seconds / 10, 1.0)
        self._closing = threading.Event()
        self._own = 0
        self._seen: dict[int, int] = {}
        self._answered = time.monotonic()

    def __enter__(self) -> Watchdog:
        if self._seconds and self._processes.count > 1:
            self._answered = time.monotonic()
            for work in (self._exchange, self._judge):
                threading.Thread(target=work, daemon=True, name="watchdog").start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()

    def heartbeat(self, step: int) -> None:
        """This process has all it needs for a step, and begins it."""
        self._own = step

    def _exchange(self) -> None:
        """Apart from `_judge`, since an answer may never come."""
        while not self._closing.wait(self._tick):
            try:
                key = f"steps/{self._processes.index}"
                self._processes.put(key, str(self._own), overwrite=True)
                steps = self._processes.get_all("steps")
            except jax.errors.JaxRuntimeError:
                continue  # `_judge` counts how long there has been no answer
            self._seen = {int(index): int(step) for index, step in steps.items()}
            self._answered = time.monotonic()

    def _judge(self) -> None:
        newest, since = 0, time.monotonic()
        while not self._closing.wait(self._tick):
            now, seen = time.monotonic(), self._seen
            if now - self._answered > self._seconds:
                self._end([0], f"has not answered for {self._seconds:g} s", self._own)
            if max(seen.values(), default=0) > newest:
                newest, since = max(seen.values()), now
            behind = [i for i in range(self._processes.count) if seen.get(i, 0) < newest]
            if behind and now - since > self._seconds:
                self._end(behind, f"not there {self._seconds:g} s after the first", newest)

    def _end(self, behind: list[int], finding: str, step: int) -> None:
        if self._closing.is_set():
            return
        names = ", ".join(f"process {index}" for index in behind)
        print(f"error: step {step}: {names}: {finding}; all end", file=sys.stderr)
        if self._processes.index in behind:
            faulthandler.dump_traceback(sys.stderr)
        exit_process(LEFT_BEHIND)
