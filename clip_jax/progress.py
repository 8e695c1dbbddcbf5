"""Progress bars: on a terminal as text, in a notebook as widgets if it has ipywidgets.

What has no count of its own, a compilation say, prints a line now and then.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import TextIO

with warnings.catch_warnings():
    # That ipywidgets are missing is no fault of the caller's: there is no bar then. In notebooks
    # tqdm.auto warns besides that it is an experiment.
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm

HAS_WIDGETS = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


def progress_bar(total: int | None, unit: str, *, quiet: bool) -> tqdm:
    """Returns a bar that is removed at its end.

    total: None: unknown. unit: what is counted, in the plural.
    quiet: show none; without a terminal or widgets there is none anyway.
    """
    # None: none without a terminal, which a notebook's streams are not.
    disable = True if quiet else (False if HAS_WIDGETS else None)
    return tqdm(total=total, unit=f" {unit}", disable=disable, leave=False)


FIRST_LINE_SECONDS, LINE_SECONDS = 10.0, 30.0


@contextlib.contextmanager
def elapsed_lines(
    what: str, *, quiet: bool = False, stream: TextIO | None = None
) -> Iterator[None]:
    """Prints "WHAT: 10 s so far" while the block runs, after 10 s and then every 30 s.

    quiet: print nothing, on a process that is not the first say. stream: None: standard error.
    """
    if quiet:
        yield
        return
    ended, start = threading.Event(), time.monotonic()

    def write() -> None:
        wait = FIRST_LINE_SECONDS
        while not ended.wait(wait):
            wait = LINE_SECONDS
            seconds = time.monotonic() - start
            with contextlib.suppress(OSError, ValueError):  # the stream was closed meanwhile
                print(f"{what}: {seconds:.0f} s so far", file=stream or sys.stderr, flush=True)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
