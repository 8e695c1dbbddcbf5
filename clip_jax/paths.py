"""Paths of files: local ones, and `gs://` ones of Google Cloud Storage.

`as_path` makes either of a text and refuses any other scheme, so that no address becomes a local
folder ("gs:/bucket"). A local path is a `pathlib.Path`. A `BucketPath` has the same methods, as far
as an object store can: an object is written whole, and appears when its upload has ended; there
is neither append nor rename, and a folder exists as soon as an object is in it.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import functools
import importlib.util
import logging
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from etils.epath.gpath import PosixGPath

from clip_jax.errors import InputError

PREFIX = "gs://"
DOCS = "docs/storage.md"
UPLOADS_AT_ONCE = 16
# The store's digest of what it has got is compared with that of what was sent. Not of what is read:
# objects that were uploaded in parts have no such digest.
COMPARED = {"consistency": "md5"}
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# What pathlib leaves of an address, which has lost a slash.
_CUT_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")
# Of the packages that reach a bucket: their errors have no common type.
_CLIENTS = ("gcsfs", "google", "aiohttp", "requests")


def as_path(path: str | os.PathLike[str]) -> Path:
    """Returns a `Path`, or for `gs://BUCKET/...` a `BucketPath`, which has a Path's methods.

    Any other scheme, and `gs://` without the packages that it needs, raises InputError. Reaches for
    no network.
    """
    if isinstance(path, BucketPath):
        return cast(Path, path)
    text = os.fspath(path)
    if address := _ADDRESS.match(text):
        return cast(Path, _bucket_path(text, address[1]))
    if not isinstance(path, str) and (cut := _CUT_ADDRESS.match(text)):
        raise InputError(
            f"{text}: pathlib has cut {cut[1]}:// short; give the address as a text (str)"
        )
    return Path(path)


def local_path(path: str | os.PathLike[str], what: str) -> Path:
    """Returns a local path; a bucket's raises InputError. what: is there, for the error."""
    found = as_path(path)
    if is_remote(found):
        raise InputError(f"{found}: {what} cannot be in a bucket; expected a local path ({DOCS})")
    return found


def check_scheme(text: str) -> None:
    """Raises InputError for a text that is an address with a scheme other than `gs`."""
    if _ADDRESS.match(text):
        as_path(text)


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is in a bucket."""
    return os.fspath(path).startswith(PREFIX)


def check_bucket(path: Path) -> None:
    """Raises InputError for a path whose bucket is missing or may not be listed; local ones pass.

    One request: for what others read and write later, and only warn of.
    """
    if not is_remote(path):
        return
    bucket, _, prefix = str(path).removeprefix(PREFIX).partition("/")
    try:
        with _os_errors(path):
            _filesystem().call(
                "GET", "b/{}/o", bucket, prefix=prefix, maxResults=1, json_out=True
            )
    except FileNotFoundError as error:
        raise InputError(f"{path}: No such bucket") from error
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def absolute(path: Path) -> Path:
    """Returns the absolute path; a bucket's is."""
    return path if is_remote(path) else path.absolute()


def upload(local: Path, target: Path) -> None:
    """Copies a local file to an object, whole."""
    with _os_errors(target):
        _filesystem().put_file(str(local), str(target), **COMPARED)


def upload_folder(local: Path, target: Path, last: str) -> None:
    """Copies all files of a local folder, sixteen at once; then the one that shows they are there.

    last: its name in the folder, which need not have it.
    """
    files = sorted(file for file in local.rglob("*") if file.is_file())
    names = [file.relative_to(local).as_posix() for file in files]
    names = [name for name in names if name != last]
    with _os_errors(target):
        sources, targets = (
            [str(folder / name) for name in names] for folder in (local, target)
        )
        _filesystem().put(sources, targets, batch_size=UPLOADS_AT_ONCE, **COMPARED)
    if (local / last).exists():
        upload(local / last, target / last)


def copy_objects(pairs: Sequence[tuple[Path, Path]]) -> None:
    """Copies objects to objects inside the store: nothing passes through this machine."""
    if not pairs:
        return
    sources, targets = ([str(path) for path in column] for column in zip(*pairs, strict=True))
    with _os_errors(pairs[0][1]):
        _filesystem().copy(sources, targets, batch_size=UPLOADS_AT_ONCE)


@contextlib.contextmanager
def local_copy(file: Path) -> Iterator[Path]:
    """Yields a local file itself, or an object's copy in a temporary folder, removed at the end."""
    if not is_remote(file):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as folder:
        copy = Path(folder) / file.name
        with _os_errors(file):
            _filesystem().get_file(str(file), str(copy))
        yield copy


def remove_tree(folder: Path) -> None:
    """Removes a folder with all that is in it; nothing where there is none."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.is_dir():
        with _os_errors(folder):
            _filesystem().rm(str(folder), recursive=True)


def error_number(error: BaseException) -> int | None:
    """Returns the operating system's number for an error of a bucket's client; None for others."""
    if isinstance(error, FileNotFoundError):
        return errno.ENOENT
    text, code = str(error), getattr(error, "code", None)
    client = type(error).__module__.partition(".")[0] in _CLIENTS
    if isinstance(error, OSError) and error.errno is None and text.startswith("Forbidden"):
        return errno.EACCES
    if isinstance(error, ValueError) and text.startswith("Bad Request"):
        return errno.EINVAL
    if client and (code in (401, 403) or type(error).__module__.startswith("google.auth")):
        return errno.EACCES
    return errno.EIO if client else None


class ObjectStat(NamedTuple):
    """Holds what `BucketPath.stat` returns, under the names of os.stat_result.

    st_mtime_ns: from the object's generation, another one whenever it is written.
    """

    st_size: int
    st_mode: int
    st_mtime_ns: int


class BucketPath(PosixGPath):
    """A `gs://` path. Every error of its methods is an OSError with its number and this path.

    A path that `iterdir`, `glob` or `rglob` gave knows from the listing what it is, as entries of
    os.scandir do: its `is_dir`, `is_file` and `stat` ask for nothing.
    """

    _listed: Mapping[str, Any] | None = None

    def absolute(self) -> BucketPath:
        return self

    def resolve(self, strict: bool = False) -> BucketPath:
        return self

    def expanduser(self) -> BucketPath:
        return self

    def exists(self) -> bool:
        return self._info() is not None

    def is_dir(self) -> bool:
        found = self._listed or self._info()
        return found is not None and found["type"] == "directory"

    def is_file(self) -> bool:
        found = self._listed or self._info()
        return found is not None and found["type"] != "directory"

    def stat(self) -> Any:
        found = self._listed or self._info()
        if found is None:
            raise _not_found(self)
        if found["type"] == "directory":
            return ObjectStat(0, stat.S_IFDIR, 0)
        return ObjectStat(found["size"], stat.S_IFREG, 1000 * int(found.get("generation", 0)))

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Makes nothing: a folder comes with its first object."""
        if not exist_ok and self.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self))

    def rmdir(self) -> None:
        """Removes nothing: a folder goes with its last object."""

    def iterdir(self) -> Iterator[Any]:
        """Yields nothing where nothing is: a folder without objects is as good as an empty one."""
        try:
            with _os_errors(self):
                entries = _filesystem().ls(str(self), detail=True)
        except FileNotFoundError:
            return iter(())
        own = str(self).removeprefix(PREFIX)
        return iter([_entry(entry) for entry in entries if entry["name"].rstrip("/") != own])

    def glob(self, pattern: str) -> Iterator[Any]:
        with _os_errors(self):
            found = _filesystem().glob(f"{self}/{pattern}", detail=True)
        return iter([_entry(entry) for entry in found.values()])

    def rglob(self, pattern: str) -> Iterator[Any]:
        """Yields objects, no folders."""
        with _os_errors(self):
            found = _filesystem().find(str(self), detail=True)
        files = [_entry(entry) for entry in found.values()]
        return iter([file for file in files if fnmatch.fnmatchcase(file.name, pattern)])

    def read_bytes(self) -> bytes:
        with _os_errors(self):
            return _filesystem().cat_file(str(self))

    def read_range(self, start: int, length: int) -> bytes:
        """Reads a part, with one request."""
        if not length:
            return b""
        with _os_errors(self):
            return _filesystem().cat_file(str(self), start=start, end=start + length)

    def read_text(self, encoding: str | None = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors)

    def write_bytes(self, data: bytes) -> int:
        with _os_errors(self):
            _filesystem().pipe_file(str(self), bytes(data), **COMPARED)
        return len(data)

    def write_text(self, text: str, encoding: str | None = "utf-8", **_: Any) -> int:
        return self.write_bytes(text.encode(encoding or "utf-8"))

    def create(self, data: bytes) -> bool:
        """Writes a new object; returns False where one is there, of whichever writer."""
        try:
            with _os_errors(self):
                _filesystem().pipe_file(str(self), data, mode="create")
        except FileExistsError:
            return False
        return True

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with _os_errors(self):
                _filesystem().rm_file(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def open(self, mode: str = "rb", **_: Any) -> Any:
        """Opens for reading, ranges as they are asked for; nothing else."""
        if mode not in ("r", "rb"):
            raise ValueError(f"{self}: mode {mode!r}; objects are written whole")
        with _os_errors(self):
            return _filesystem().open(str(self), mode)

    def _info(self) -> dict[str, Any] | None:
        try:
            with _os_errors(self):
                return _filesystem().info(str(self))
        except FileNotFoundError:
            return None


def _bucket_path(text: str, scheme: str) -> BucketPath:
    if scheme != "gs":
        raise InputError(
            f"{text}: {scheme}:// cannot be read or written; paths are local or gs://: mount it as "
            f"a folder, or copy what it holds ({DOCS})"
        )
    bucket = text.removeprefix(PREFIX).partition("/")[0]
    if not bucket:
        raise InputError(f"{text}: names no bucket; expected gs://BUCKET/NAME")
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(f"{text}: buckets need more packages: pip install 'rudolph-jax[gcs]'")
    _configure_clients()
    return BucketPath(text)


@functools.cache
def _configure_clients() -> None:
    """Sets up gcsfs for all that use it in this process: Orbax, TFDS and JAX's cache too."""
    import fsspec

    # Other processes write: a listing that is remembered would hide it.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # With TensorFlow installed epath would leave gcsfs for its file system.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # Logs traces of errors that it also raises.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Warns of each place without credentials.
    logging.getLogger("google.auth").setLevel(logging.ERROR)


def _entry(listed: Mapping[str, Any]) -> BucketPath:
    path = BucketPath(PREFIX + listed["name"].rstrip("/"))
    path._listed = listed
    return path


def _filesystem() -> Any:
    import fsspec

    _configure_clients()  # a process that was handed a path has not called `as_path`
    return fsspec.filesystem("gcs", finalize_on_close=True)  # as epath has it: one for all


@contextlib.contextmanager
def _os_errors(path: Path | BucketPath) -> Iterator[None]:
    """Turns errors of the client into OSError with a number and a reason of one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if isinstance(error, FileNotFoundError):
            raise _not_found(path, "/upload/" in str(error)) from error
        if isinstance(error, FileExistsError):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        if (number := error_number(error)) is None:
            raise
        said = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{os.strerror(number)}: {said[-1] if said else type(error).__name__}"
        raise OSError(number, reason, str(path)) from error


def _not_found(path: Path | BucketPath, writing: bool = False) -> FileNotFoundError:
    # Only a bucket can be missing for an object that is written.
    reason = "No such bucket" if writing else os.strerror(errno.ENOENT)
    return FileNotFoundError(errno.ENOENT, reason, str(path))
