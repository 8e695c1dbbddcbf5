"""How a command of this package ends: what a person is told, and the exit status."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from clip_jax.errors import InputError

WRONG_INPUT, DIVERGED, STORAGE, LEFT_BEHIND = 2, 3, 4, 5
# Stopped by SIGTERM with a checkpoint of the last finished step: EX_TEMPFAIL of sysexits.h, "try
# again". A process that SIGTERM ended at once has 143: an earlier checkpoint is the last one.
SAVED, TERMINATED = 75, 143
INTERRUPTED = 130


class DivergedError(RuntimeError):
    """Training is no longer finite; one line with what is known."""


class StorageError(RuntimeError):
    """A run's folder cannot be written any more; one line with what is known."""


class Stopped(BaseException):
    """A signal ended the run between two steps, and its state is saved; argument: its number.

    No Exception: nothing on the way may take it for an error that it can live with.
    """


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
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return STORAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Stopped as stop:
        return INTERRUPTED if stop.args[0] == signal.SIGINT else SAVED
    return 0
