"""Opens files from outside: regular ones only, and no more of them than a limit.

A named pipe would wait for a writer, a device has no end, and a sparse file of gigabytes takes no
room on disk.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from clip_jax.errors import InputError
from clip_jax.paths import as_path, is_remote

MAX_JSON_BYTES = 64 << 20
MAX_VOCABULARY_BYTES = 256 << 20


def check_regular(path: str | Path) -> int:
    """Returns a file's size in bytes without opening it; InputError unless it is a regular file.

    A file that is not there or cannot be examined raises OSError, as opening it would.
    """
    try:
        found = as_path(path).stat() if is_remote(path) else os.stat(path)
    except ValueError as error:  # a name with a zero byte
        raise InputError(f"{path}: cannot be read ({error})") from error
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is a {_kind(found.st_mode)}; expected a regular file")
    return found.st_size


def read_limited(path: str | Path, limit: int) -> bytes:
    """Reads a regular file of at most `limit` bytes; a larger one raises InputError.

    Raises OSError where the file cannot be read.
    """
    size = check_regular(path)
    if size <= limit:
        with as_path(path).open("rb") as file:
            content = file.read(limit + 1)  # it may grow
        if len(content) <= limit:
            return content
        size = len(content)
    raise InputError(f"{path}: has {size} bytes; the limit for such a file is {limit}")


def _kind(mode: int) -> str:
    names = {stat.S_IFIFO: "named pipe", stat.S_IFSOCK: "socket"}
    return names.get(stat.S_IFMT(mode), "device")
