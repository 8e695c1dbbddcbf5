"""Atomic replacement of files: written beside and renamed, or in a bucket as a whole object."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from clip_jax.paths import is_remote, upload


def replace_file(file: Path, content: str | bytes) -> None:
    """Writes a file atomically: an interruption leaves the old one."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    if is_remote(file):
        file.write_bytes(data)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        temporary.write_bytes(data)


def create_file(file: Path, content: str) -> bool:
    """Writes a new file atomically; returns False where one is there, of whichever writer."""
    data = content.encode("utf-8")
    if is_remote(file):
        return bool(file.create(data))  # type: ignore[attr-defined]
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(file)
    try:
        temporary.write_bytes(data)
        os.link(temporary, file)  # fails where the name is taken, which a rename does not
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        if file.exists():
            return False
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return True


def temporary_name(file: Path) -> Path:
    """Returns a path beside `file` that no other writer has."""
    return file.with_name(f".{file.name}.{os.getpid()}-{os.urandom(4).hex()}.new")


@contextlib.contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Yields a path beside `file` to write to; renames it at the end, removes it after an error.

    For an object in a bucket it is in a temporary folder, and uploaded at the end. Two writers at
    once have different paths; the file of the one that ends last stays.
    """
    if is_remote(file):
        with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as folder:
            local = Path(folder) / file.name
            yield local
            upload(local, file)
        return
    temporary = temporary_name(file)
    try:
        yield temporary
        os.replace(temporary, file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
