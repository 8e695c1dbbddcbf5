"""A part of a file, by its place."""

from __future__ import annotations

from pathlib import Path

Span = tuple[int, int]  # first byte in the file, and how many


def read_span(file: Path, span: Span) -> bytes:
    place, length = span
    with file.open("rb") as opened:
        opened.seek(place)
        return opened.read(length)
