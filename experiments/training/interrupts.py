"""Ctrl-C that waits for the end of what must not be cut in two."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class HeldInterrupts:
    """Holds SIGINT back while the block runs and hands it to the usual handler after it.

    Python calls handlers between any two of its instructions, so a KeyboardInterrupt can fall
    between a call and the assignment of what it returned. Blocks may nest. Handlers run in the main
    thread alone: in any other thread there is nothing to hold.
    """

    def __enter__(self) -> None:
        self._before: Any = None
        self._came = False
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is threading.main_thread() and callable(before):
            # Before the handler is replaced: an interrupt after it finds all that `__exit__` needs.
            self._before = before
            signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        if self._came:
            self._before(signal.SIGINT, None)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came = True
