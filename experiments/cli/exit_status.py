"""Maps the ways a command ends to an error line and an exit status."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence

from clip_jax.cli import INTERRUPTED, run_cli

# 2, 6, 7 and 130 are those of any command: `clip_jax/cli.py`.
DIVERGED, STORAGE, LEFT_BEHIND = 3, 4, 5
# Stopped by SIGTERM with a checkpoint of the last finished step: EX_TEMPFAIL of sysexits.h, "try
# again". A process that SIGTERM ended at once has 143: an earlier checkpoint is the last one.
SAVED, TERMINATED = 75, 143
LESS_MEMORY = (
    "a smaller config.data.batch_size, more config.grad_accum_steps, config.compute.remat=block or "
    "more devices; python -m experiments.plan --search finds what fits"
)


class DivergedError(RuntimeError):
    """Training is no longer finite; one line with what is known."""


class StorageError(RuntimeError):
    """A run's folder cannot be written any more; one line with what is known."""


class PeerLostError(RuntimeError):
    """Another process of the run is gone; one line that names it."""


class Stopped(BaseException):
    """A signal ended the run between two steps, and its state is saved; argument: its number.

    No Exception: nothing on the way may take it for an error that it can live with.
    """


def exit_status(
    work: Callable[[], object], argv: Sequence[str] = (), oom_hint: str = LESS_MEMORY
) -> int:
    """Runs `clip_jax.cli.run_cli` with the exit statuses that only training has."""
    try:
        return run_cli(
            work,
            argv,
            oom_hint=oom_hint,
            extra_exit_codes={
                DivergedError: DIVERGED,
                StorageError: STORAGE,
                PeerLostError: LEFT_BEHIND,
            },
        )
    except Stopped as stop:
        return INTERRUPTED if stop.args[0] == signal.SIGINT else SAVED
