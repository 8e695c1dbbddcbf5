"""How every command line reads its arguments and ends: one line for a person, an exit status."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NoReturn

import jax

from clip_jax.errors import InputError, PartialResultError, one_line

# 3, 4 and 5 are of training: `experiments/cli/exit_status.py`.
WRONG_INPUT, OUT_OF_MEMORY, PARTIAL, INTERRUPTED = 2, 6, 7, 130
DISTRIBUTION = "rudolph-jax"


class Parser(argparse.ArgumentParser):
    """argparse's, with the arguments that every command has and errors of one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help="trace an error"
        )
        self.add_argument(
            "--version", action="store_true", default=argparse.SUPPRESS, help="print it and end"
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help tells what there is")


def positive(text: str) -> int:
    """A positive integer of a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def version() -> str:
    """Of the installed distribution."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed"


def exit_status(
    work: Callable[[], object],
    argv: Sequence[str] = (),
    *,
    less_memory: str = "a smaller batch or --dtype=bfloat16",
    others: Mapping[type[Exception], int] | None = None,
) -> int:
    """Runs `work`; 0, or a line on stderr and the status of what went wrong.

    argv: the command's arguments; --version is answered here, and --debug adds an error's trace.
    less_memory: what to try on a device that is too small. others: further errors that are told
    in a line -> their statuses. An error that is nobody's input keeps its trace and passes.
    """
    if "--version" in argv:
        print(DISTRIBUTION, version())
        return 0
    try:
        work()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        line, status = told(error, less_memory, others or {})
        if not status:
            raise
        if "--debug" in argv:
            traceback.print_exc()
        print("error:", one_line(" ".join(line.split())), file=sys.stderr)
        return status
    return 0


def told(
    error: Exception, less_memory: str, others: Mapping[type[Exception], int]
) -> tuple[str, int]:
    """The line and the status of an error; no status for one that is nobody's input."""
    for kind, status in others.items():
        if isinstance(error, kind):
            return str(error), status
    if isinstance(error, InputError):
        return str(error), WRONG_INPUT
    if isinstance(error, PartialResultError):
        return str(error), PARTIAL
    if isinstance(error, OSError):
        named = error.filename is not None and error.strerror
        return f"{error.filename}: {error.strerror}" if named else str(error), WRONG_INPUT
    if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
        return f"no memory left on the device ({error}); try {less_memory}", OUT_OF_MEMORY
    if isinstance(error, MemoryError):
        return f"no memory left on the host ({error}); try {less_memory}", OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error):
        return f"{error}; JAX_PLATFORMS=cpu runs without one", WRONG_INPUT
    return "", 0
