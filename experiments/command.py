"""How a command of this package ends: what a person is told, and the exit status."""

from __future__ import annotations

import sys
from collections.abc import Callable

from clip_jax.errors import InputError

WRONG_INPUT, DIVERGED, INTERRUPTED = 2, 3, 130


class DivergedError(RuntimeError):
    """Training is no longer finite; one line with what is known."""


def exit_status(work: Callable[[], object]) -> int:
    """Runs `work`; 0, or a line on stderr and the status of what went wrong.

    Errors that are nobody's input keep their trace.
    """
    try:
        work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG_INPUT
    except DivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        return DIVERGED
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
