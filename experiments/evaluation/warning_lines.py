"""Warnings as a command prints them: a line each, and each once."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from clip_jax.text import escape


@contextlib.contextmanager
def warning_lines() -> Iterator[None]:
    """In which a warning is "warning: ..." on stderr, of the first host alone."""
    said: set[str] = set()

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        line = " ".join(escape(str(message)).split())
        if line not in said and jax.process_index() == 0:
            print(f"warning: {line}", file=sys.stderr, flush=True)
        said.add(line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
