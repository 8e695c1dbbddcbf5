"""Ends every process of a run where one of them does not come along, and says which.

Each process writes the step that it has reached; the first alone reads all of these, and writes one
summary that the others read: `values_a_tick` grows with the processes, not with their square.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import sys
import threading
import time

import jax

from experiments.cli.exit_status import LEFT_BEHIND
from experiments.distributed.processes import Processes, exit_process

TICK_SECONDS = 10.0  # at most; a tenth of the limit where that is less
LISTED = 8  # processes behind that are named


def values_a_tick(processes: int) -> int:
    """Returns how many values all processes together write to the store and read from it.

    Each its step and the summary, and the first the steps of all.
    """
    return 3 * processes


class Watchdog:
    """Publishes the step that each process has reached; use as a context manager.

    A collective waits for ever for a process that hangs or is gone, so no process finishes a step
    that one has not begun: what counts is who has begun it. A process that began a step waits
    `seconds` for the others to begin it too. Threads do it: they run while a device computes.
    """

    def __init__(self, processes: Processes, seconds: float) -> None:
        self._processes, self._seconds = processes, seconds
        self._tick = min(seconds / 10, TICK_SECONDS)
        self._closing = threading.Event()
        self._own = 0
        self._beat = 0
        # The newest step that a process has begun; the first processes that have not; how many.
        self._newest, self._behind, self._count = 0, list[int](), 0
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
            # `_judge` counts how long there has been no answer.
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                self.exchange()

    def exchange(self) -> None:
        """Writes this process's step; the first reads all and sums up, the others read that."""
        own = self._own
        self._processes.put(f"steps/{self._processes.index}", str(own), overwrite=True)
        if self._processes.first:
            steps = {int(i): int(step) for i, step in self._processes.get_all("steps").items()}
            newest = max(steps.values(), default=0)
            behind = [i for i in range(self._processes.count) if steps.get(i, 0) < newest]
            self._beat += 1
            count, behind = len(behind), behind[:LISTED]
            summary = json.dumps([self._beat, newest, behind, count])
            self._processes.put("steps summary", summary, overwrite=True)
        else:
            found = self._processes.get("steps summary")
            # A summary that stays as it is comes from a process that does not run.
            if found is None or (beat := json.loads(found)[0]) == self._beat:
                return
            self._beat, newest, behind, count = beat, *json.loads(found)[1:]
        self._newest, self._behind, self._count = newest, behind, count
        self._answered = time.monotonic()

    def _judge(self) -> None:
        newest, since = 0, time.monotonic()
        while not self._closing.wait(self._tick):
            now = time.monotonic()
            if now - self._answered > self._seconds:
                self._end([0], 1, f"has not answered for {self._seconds:g} s", self._own)
            if self._newest > newest:
                newest, since = self._newest, now
            if self._behind and now - since > self._seconds:
                finding = f"not there {self._seconds:g} s after the first"
                self._end(self._behind, self._count, finding, newest)

    def _end(self, behind: list[int], count: int, finding: str, step: int) -> None:
        """behind: the first of the `count` processes that are."""
        if self._closing.is_set():
            return
        names = ", ".join(f"process {index}" for index in behind)
        names += f" and {count - len(behind)} more" if count > len(behind) else ""
        print(f"error: step {step}: {names}: {finding}; all end", file=sys.stderr)
        if self._processes.index in behind or self._own < step:
            faulthandler.dump_traceback(sys.stderr)
        exit_process(LEFT_BEHIND)
