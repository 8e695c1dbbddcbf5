"""Turns errors of a full or lost disk into one line."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator

from clip_jax.paths import error_number, is_remote
from experiments.cli.exit_status import StorageError

CODES = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
}  # fmt: skip

TENSORSTORE = re.compile(r"(?:os_error_code='|OS error )(\d+)")
# What TensorStore says of an object store instead.
REFUSED = re.compile(r"PERMISSION_DENIED|UNAUTHENTICATED|Permission denied|Unauthenticated")


@contextlib.contextmanager
def storage_errors(folder: object, last_good: Callable[[], str]) -> Iterator[None]:
    """Turns errors of writing below `folder` into StorageError."""
    try:
        yield
    except Exception as error:
        code = error_code(error)
        if code is None or _is_elsewhere(error, folder):
            raise
        raise StorageError(
            f"{folder}: cannot be written ({os.strerror(code)}); last complete checkpoint: "
            f"{last_good()}; make room or mend it, and the same command resumes"
        ) from error


def _is_elsewhere(error: BaseException | None, folder: object) -> bool:
    """Tells whether an error is of an object that is not below `folder`: of data that are read."""
    while error is not None:
        name = str(getattr(error, "filename", None) or "")
        if is_remote(name):
            return not f"{name}/".startswith(f"{folder}/")
        error = error.__cause__ or error.__context__
    return False


def error_code(error: BaseException | None) -> int | None:
    """The operating system's number of a failed write, wherever in the chain of causes it is."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in CODES:
            return error.errno
        if (number := error_number(error)) in CODES:
            return number
        # TensorStore, which writes the arrays, has no types for it.
        if (match := TENSORSTORE.search(str(error))) and int(match[1]) in CODES:
            return int(match[1])
        if REFUSED.search(str(error)):
            return errno.EACCES
        error = error.__cause__ or error.__context__
    return None
