"""Prints what evaluations find: on the first host alone, warnings as single lines."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from clip_jax.text import escape


def print_line(*words: Any, **options: Any) -> None:
    """Prints on the first host; what no encoding has, of undecodable file names, as escapes."""
    if jax.process_index() == 0:
        print(*(escape(str(word)) for word in words), **options, flush=True)


@contextlib.contextmanager
def warning_lines() -> Iterator[None]:
    """Shows warnings as "warning: ..." on stderr, each once."""
    shown: set[str] = set()

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        line = " ".join(escape(str(message)).split())
        if line not in shown:
            print_line(f"warning: {line}", file=sys.stderr)
        shown.add(line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
