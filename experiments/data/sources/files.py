"""Reads files by names from outside, which must stay in a folder and may be in NFC or NFD."""

from __future__ import annotations

import collections
import functools
import itertools
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from clip_jax.paths import is_remote
from clip_jax.text import normalize_name
from experiments.data.sources.records import LARGEST_FILE, BadRecord

ByteRange = tuple[int, int]  # first byte in a file, and how many

OBJECTS_AT_ONCE = 16  # of a bucket, on their way to one process
# Folders whose listings are remembered; images of one table lie in few.
FOLDERS_CACHED = 64


def find_inside(folder: Path, name: str) -> Path:
    """The file of a path that must not leave the folder, links followed.

    The exact name first, then the same in NFC or NFD, then a name that differs in its form alone:
    macOS decomposes letters ("й" is two code points), tables come from elsewhere. A path to no
    file, or out of the folder, raises BadRecord.
    """
    try:
        file = _resolve(folder, name)
        if not file.exists():
            forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
            others = (_resolve(folder, other) for other in forms if other != name)
            file = next((other for other in others if other.exists()), None)
            file = file or _resolve(folder, _by_components(folder, name))
        if not file.exists():
            raise BadRecord(f"image is missing: {name!r}")
        if not file.is_file():
            raise BadRecord(f"image is no file: {name!r}")
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, names with zeros
        raise BadRecord(f"image cannot be read: {' '.join(str(error).split())}") from error
    return file


def read_inside(folder: Path, name: str) -> bytes:
    """The contents of the file that `find_inside` finds; in a bucket of the name, NFC or NFD."""
    try:
        file = _find_object(folder, name) if is_remote(folder) else find_inside(folder, name)
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):
            raise BadRecord(f"image is no file: {name!r}")
        if about.st_size > LARGEST_FILE:
            raise BadRecord(f"image is too large: {about.st_size} bytes")
        return file.read_bytes()
    except OSError as error:
        raise BadRecord(f"image cannot be read: {' '.join(str(error).split())}") from error


def read_each_inside(folder: Path, names: Iterable[str]) -> Iterator[bytes | BadRecord]:
    """Yields what `read_inside` returns or raises, in order; of a bucket several at a time."""

    def read(name: str) -> bytes | BadRecord:
        try:
            return read_inside(folder, name)
        except BadRecord as error:
            return error

    if not is_remote(folder):
        yield from map(read, names)
        return
    left = iter(names)
    with ThreadPoolExecutor(OBJECTS_AT_ONCE) as pool:
        pending = collections.deque(
            pool.submit(read, name) for name in itertools.islice(left, OBJECTS_AT_ONCE)
        )
        while pending:
            yield pending.popleft().result()
            pending.extend(pool.submit(read, name) for name in itertools.islice(left, 1))


def read_range(file: Path, place: ByteRange) -> bytes:
    """Reads a part of a file; in a bucket by a request of its own."""
    start, length = place
    if is_remote(file):
        return file.read_range(start, length)  # type: ignore[attr-defined]
    with file.open("rb") as opened:
        opened.seek(start)
        return opened.read(length)


def are_two_files(folder: Path, name: str, other: str) -> bool:
    """Return whether the folder has two files by these exact names, not one by both."""
    files = folder / name, folder / other
    if is_remote(folder):  # where each name is an object of its own
        return all(file.exists() for file in files)
    try:
        return all(map(os.path.exists, files)) and not os.path.samefile(*files)
    except (OSError, ValueError):
        return False


def _find_object(folder: Path, name: str) -> Path:
    """Returns the object of a name, or of the same in NFC or NFD; BadRecord where there is none."""
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or "\0" in name:
        raise BadRecord(f"path leaves the folder: {name!r}")
    others = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    for spelling in dict.fromkeys([name, *others]):
        if (found := folder / spelling).exists():
            return found
    raise BadRecord(f"image is missing: {name!r}")


def _resolve(folder: Path, name: str) -> Path:
    file = (folder / name).resolve()
    if not file.is_relative_to(folder.resolve()):
        raise BadRecord(f"path leaves the folder: {name!r}")
    return file


def _by_components(folder: Path, name: str) -> str:
    """The path with each component as its folder spells it; the name where there is none such."""
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        return name
    found: list[str] = []
    for part in parts:
        place = folder.joinpath(*found)
        if not (place / part).exists():
            spellings = _listing(str(place), place.stat().st_mtime_ns).get(normalize_name(part), ())
            if len(spellings) > 1:
                raise BadRecord(f"image's name fits {len(spellings)} files: {name!r}")
            if not spellings:
                return name
            part = spellings[0]
        found.append(part)
    return str(Path(*found))


@functools.lru_cache(maxsize=FOLDERS_CACHED)
def _listing(folder: str, _: int) -> dict[str, list[str]]:
    """The names in a folder by their NFC; a folder that changes has another time."""
    found: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        found.setdefault(normalize_name(name), []).append(name)
    return found
