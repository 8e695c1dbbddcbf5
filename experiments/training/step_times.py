"""Steps that take much longer than those before them."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable

WINDOW = 50  # steps that the median is of
FEWEST = 10  # steps before one is judged
FACTOR, SECONDS = 3.0, 1.0  # a jump is longer than the median by both


class StepTimes:
    """Times the steps of a run by a clock that only goes forward, whatever the system's does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds since any moment."""
        self._clock = clock
        self._last: float | None = None
        self._times: deque[float] = deque(maxlen=WINDOW)
        self._slow = False

    def pause(self) -> None:
        """Leaves out the time until the next step: an evaluation's, a checkpoint's."""
        self._last = None

    def done(self, step: int) -> str | None:
        """Takes note that a step is done; a line to show for the first of slow steps in a row."""
        now, before = self._clock(), self._last
        self._last = now
        if before is None:
            return None
        seconds, times = now - before, self._times
        median = statistics.median(times) if len(times) >= FEWEST else None
        times.append(seconds)
        slow = median is not None and seconds > max(FACTOR * median, median + SECONDS)
        begins = slow and not self._slow
        self._slow = slow
        if not begins:
            return None
        return (
            f"step {step}: warning: took {seconds:.1f} s; the median of the {len(times) - 1} "
            f"steps before is {median:.2g} s"
        )
