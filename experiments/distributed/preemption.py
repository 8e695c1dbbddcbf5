"""Ends a run at a step boundary when a signal asks for it.

SIGTERM, which clusters send before they take a machine away, lets the step that runs end and the
run leave with a checkpoint of it. While there is nothing to save, as in the first compilation, and
when it comes a second time, it ends the process at once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from experiments.cli.exit_status import Stopped
from experiments.distributed.exit_now import leave
from experiments.distributed.processes import Processes


class PreemptionHandler:
    """Use as a context manager around a run; outside the main thread it hears nothing.

    SIGINT stays Python's own with one process. With several it is taken like SIGTERM: an
    exception in one of them would leave the others waiting. A signal to one of several comes to the
    others with the rows of its next step: each step takes the largest of `signal_to_share`, all
    processes look at it after the same step, and none asks the coordination service.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._signals = {signal.SIGTERM} | ({signal.SIGINT} if processes.count > 1 else set())
        self._asked: int | None = None
        self._agreed = False
        self._may_break = False
        self.nothing_to_save = True

    def __enter__(self) -> PreemptionHandler:
        self._hears = threading.current_thread() is threading.main_thread()
        if not self._hears:
            return self
        self._handlers = {number: signal.signal(number, self._ask) for number in self._signals}
        # Python calls a handler between two of its own instructions, so none is called while XLA
        # compiles. The number in a pipe comes through at once.
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._fd_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, daemon=True, name="stopping").start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self._hears:
            return
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._writing)  # which ends the thread

    def should_stop(self) -> bool:
        """Returns whether the run ends before the next step, the same on all processes."""
        return self._agreed if self._processes.count > 1 else self._asked is not None

    def agree(self, number: int) -> None:
        """Takes what the processes shared in a step: the signal to one of them, 0 for none."""
        if number:
            self._asked, self._agreed = number, True

    def signal_to_share(self) -> int:
        """Returns the signal that this process was sent, 0 for none."""
        return self._asked or 0

    def stopped(self) -> Stopped:
        return Stopped(int(self._asked))

    @contextlib.contextmanager
    def interruptible(self, alone: bool = True) -> Iterator[None]:
        """Lets a signal raise Stopped inside the block. alone: only with one process."""
        if alone and self._processes.count > 1:
            yield
            return
        self._may_break = True
        try:
            if self._asked is not None:
                raise self.stopped()
            yield
        finally:
            self._may_break = False

    def _ask(self, number: int, _: object) -> None:
        self._asked = number
        if self._may_break:
            self._may_break = False
            raise self.stopped()

    def _listen(self) -> None:
        heard = 0
        with os.fdopen(self._reading, "rb", buffering=0) as pipe:
            while numbers := pipe.read(1):
                if numbers[0] not in self._signals:
                    continue
                heard += 1
                if self.nothing_to_save or heard > 1:
                    name = signal.Signals(numbers[0]).name
                    again = "again" if heard > 1 else "before a step was done"
                    print(f"{name} {again}; nothing more is saved", file=sys.stderr, flush=True)
                    leave(128 + numbers[0])
