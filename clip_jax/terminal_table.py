"""Tables for people, drawn by rich on a terminal; pipes, files and notebooks get plain lines.

Colours follow NO_COLOR, widths the terminal's (COLUMNS). Long cells are folded, never cut off.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from clip_jax.text import escape

if TYPE_CHECKING:
    from rich.console import Console

DUMB = ("dumb", "unknown")  # values of TERM without cursor or lines


def print_table(
    plain: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str = "",
    styles: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
) -> None:
    """Prints rows as a table on a terminal, and `plain` on anything else.

    columns: their heads; empty ones all: no head. Cells are shown as they are, brackets included.
    styles: a cell's text -> its style in rich's words, "green" say.
    stream: None: standard output.
    """
    stream = stream or sys.stdout
    if not on_terminal(stream):
        print(escape(plain), file=stream, flush=True)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(escape(title), "bold") if title else None, title_justify="left",
        show_header=any(columns),
    )  # fmt: skip
    for place, head in enumerate(columns):
        numbers = bool(rows) and all(_is_number(row[place]) for row in rows)
        table.add_column(head, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        cells = [escape(cell) for cell in row]
        table.add_row(*(Text(cell, (styles or {}).get(cell, "")) for cell in cells))
    _console(stream).print(table)
    stream.flush()


def print_markdown(text: str, stream: TextIO | None = None) -> None:
    """Prints Markdown, with its tables drawn on a terminal and as it is on anything else."""
    stream = stream or sys.stdout
    if not on_terminal(stream):
        print(escape(text), file=stream, flush=True)
        return
    from rich.markdown import Markdown

    _console(stream).print(Markdown(escape(text)))
    stream.flush()


def on_terminal(stream: TextIO) -> bool:
    """Returns whether a stream is a terminal that can show a table."""
    return stream.isatty() and os.environ.get("TERM") not in DUMB


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False)


def _is_number(cell: str) -> bool:
    return cell.removesuffix("%").strip().replace(".", "", 1).lstrip("+-").isdecimal()
