"""Arguments, error lines and exit statuses that all commands have in common."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import jax

from clip_jax.errors import InputError, PartialResultError, one_line
from clip_jax.paths import as_path, local_path

# 3, 4 and 5 are for training: `experiments/cli/run_cli.py`.
WRONG_INPUT, OUT_OF_MEMORY, PARTIAL, INTERRUPTED = 2, 6, 7, 130
DISTRIBUTION = "rudolph-jax"
LONG_DEFAULT = 40  # characters, above which a description such as "(all)" may stand for it


class Parser(argparse.ArgumentParser):
    """Parses arguments as argparse does, adds those of every command, and raises InputError.

    Help shows the default of each option that has one.
    """

    def __init__(self, **settings: Any) -> None:
        base = settings.pop("formatter_class", argparse.HelpFormatter)
        formatter: Any = type(base.__name__, (_ShownDefaults, base), {})
        super().__init__(formatter_class=formatter, **settings)
        self.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS,
            help="print the traceback of an error",
        )  # fmt: skip
        self.add_argument(
            "--version", action="store_true", default=argparse.SUPPRESS,
            help="print the version and exit",
        )  # fmt: skip

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; {self.prog} --help lists the options")


class _ShownDefaults(argparse.HelpFormatter):
    """Ends the help of an option by its default, unless the text has it already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = super()._get_help_string(action) or "", shown_default(action)
        if default in text or (len(default) > LONG_DEFAULT and text.endswith(")")):
            return text
        return f"{text} ({default.replace('%', '%%')})"


def shown_default(action: argparse.Action) -> str:
    """Returns the default that an option's help must show; "" for a flag and for none."""
    if not action.option_strings or action.nargs == 0 or action.default == argparse.SUPPRESS:
        return ""
    if isinstance(action.default, list | tuple):
        return ",".join(map(str, action.default))
    return "" if action.default is None else str(action.default)


def positive_int(text: str) -> int:
    """Parses a positive integer, as the `type` of an argument."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def any_path(text: str) -> Path:
    """Parses a path, local or `gs://`, as the `type` of an argument."""
    try:
        return as_path(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def local_only(text: str) -> Path:
    """Parses a local path, as the `type` of an argument."""
    try:
        return local_path(text, "this")
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def version() -> str:
    """Returns the version of the installed distribution."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "not installed"


def run_cli(
    work: Callable[[], object],
    argv: Sequence[str] = (),
    *,
    oom_hint: str = "a smaller batch or --dtype=bfloat16",
    extra_exit_codes: Mapping[type[Exception], int] | None = None,
) -> int:
    """Runs `work` and returns the exit status: 0, or an error's, whose line goes to stderr.

    argv: the command's arguments; --version is handled here, --debug prints tracebacks.
    oom_hint: what to try where memory runs out.
    extra_exit_codes: exception type -> exit status, for errors beside those known here.

    An error that no input caused is raised again.
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
        line, status = describe_error(error, oom_hint, extra_exit_codes or {})
        if not status:
            raise
        if "--debug" in argv:
            traceback.print_exc()
        print("error:", one_line(" ".join(line.split())), file=sys.stderr)
        return status
    return 0


def describe_error(
    error: Exception, oom_hint: str, extra_exit_codes: Mapping[type[Exception], int]
) -> tuple[str, int]:
    """Returns the line and the exit status of an error; status 0 for one that no input caused."""
    for kind, status in extra_exit_codes.items():
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
        return f"no memory left on the device ({error}); try {oom_hint}", OUT_OF_MEMORY
    if isinstance(error, MemoryError):
        return f"no memory left on the host ({error}); try {oom_hint}", OUT_OF_MEMORY
    if isinstance(error, RuntimeError) and "Unable to initialize backend" in str(error):
        return f"{error}; JAX_PLATFORMS=cpu runs without one", WRONG_INPUT
    return "", 0
