"""Shows what a run does before its first step, and how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TextIO, TypeVar

from tqdm import tqdm

T = TypeVar("T")
PLAIN_LINE_SECONDS = 10.0  # between lines of progress where there is no terminal
SHOWN_SECONDS = 1.0  # a phase of at least so long says what it took


class Phases:
    """phases("what begins") prints a line, and what the phase before took if it was long."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        """quiet: print nothing, on a process that is not the first. stream: None for stderr."""
        self._quiet, self._stream = quiet, stream
        self._last: tuple[str, float] | None = None

    def __call__(self, phase: str) -> None:
        self.end()
        self._last = phase, time.monotonic()
        self._print(f"{phase} ...")

    def note(self, line: str) -> None:
        """Prints a line that is no phase."""
        self._print(line)

    def end(self) -> None:
        """Ends the last phase."""
        if self._last is not None:
            phase, since = self._last
            seconds = time.monotonic() - since
            if seconds >= SHOWN_SECONDS:
                self._print(f"{phase}: {seconds:.1f} s")
        self._last = None

    def _print(self, line: str) -> None:
        if not self._quiet:
            print(line, file=self._stream or sys.stderr, flush=True)


def with_progress(items: Sequence[T], what: str, stream: TextIO | None = None) -> Iterator[T]:
    """Yields items under a bar on a terminal, with a plain line every 10 seconds elsewhere."""
    stream = stream or sys.stderr
    if stream.isatty():
        yield from tqdm(items, what, file=stream, leave=False)
        return
    last = time.monotonic()
    for number, item in enumerate(items):
        now = time.monotonic()
        if now - last >= PLAIN_LINE_SECONDS:
            last = now
            print(f"{what}: {number:,} of {len(items):,}", file=stream, flush=True)
        yield item
