"""Atomic replacement of files: write beside, then rename."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def replace_file(file: Path, content: str | bytes) -> None:
    """Writes a file atomically: an interruption leaves the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yields a path beside `file` to write to; renames it at the end, removes it after an error.

    Two writers at once have different paths; the file of the one that ends last stays.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}-{os.urandom(4).hex()}.new")
    try:
        yield temporary
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
