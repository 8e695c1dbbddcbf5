"""A file that is whole, or as it was."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def replace_file(file: Path, content: str | bytes) -> None:
    """Writes beside and renames: an interruption leaves the old file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as beside:
        beside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Gives a path beside `file` to write to, renamed to it at the end, removed after an error.

    Of two writers at once the later one's file stays, whole: each has a path of its own.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}-{os.urandom(4).hex()}.new")
    try:
        yield beside
        os.replace(beside, file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
