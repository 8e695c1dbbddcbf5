"""Lists and reads the images to be indexed: of a folder, of tar files, or of a prepared set.

Every kind gives entries in a fixed order, and reads one by its key:

    photos            "deeper/1.png"
    shards, a.tar     "a.tar/0001.jpg", read in place
    prepared set      "train/17"
"""

from __future__ import annotations

import dataclasses
import functools
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from clip_jax.arguments import check_path
from clip_jax.errors import InputError
from clip_jax.image_file import IMAGE_SUFFIXES
from clip_jax.input_files import read_limited
from clip_jax.paths import as_path
from clip_jax.system_folders import is_system
from clip_jax.text import escape

PREPARED_FILE = "dataset_info.json"
MAX_IMAGE_BYTES = 1 << 30
IMAGE_FEATURE = "image"


@dataclasses.dataclass(frozen=True)
class Entry:
    """An image before it is read. size: bytes. changed: time in ns, or another sign of a change.

    offset: where its bytes begin, of a member of a tar file.
    """

    key: str
    size: int
    changed: int
    offset: int = 0


class Source(Protocol):
    """Lists images, and reads one. ignored: how many files `entries` passed over, by then."""

    ignored: int

    def entries(self) -> Iterator[Entry]:
        """Yields all images in a fixed order."""
        ...

    def read(self, entry: Entry) -> bytes:
        """Returns an image file's bytes; OSError or InputError where that fails."""
        ...


def open_source(path: str | Path) -> Source:
    """Returns the source at a path: a prepared set, a tar file, a folder of tars or of images."""
    place = as_path(check_path("source", path))
    if place.is_dir():
        if (place / PREPARED_FILE).is_file():
            return PreparedSet(place)
        tars = sorted(each for each in place.iterdir() if each.suffix == ".tar")
        return TarFiles(place, tars) if tars else ImageFolder(place)
    if place.suffix == ".tar" and place.is_file():
        return TarFiles(place.parent, [place])
    raise InputError(
        f"{escape(str(place))}: no images can be read from it; expected a folder of images or of "
        ".tar files, a .tar file, or a prepared set (python -m experiments.prepare)"
    )


class ImageFolder:
    """Images below a folder; hidden files and those in `system_folders` are ignored."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ignored = folder, 0

    def entries(self) -> Iterator[Entry]:
        self.ignored = 0
        yield from self._below(self.folder, "")

    def _below(self, folder: Path, prefix: str) -> Iterator[Entry]:
        for path in sorted(folder.iterdir(), key=lambda each: each.name):
            if is_system(path.name):
                self.ignored += 1
                continue
            key = prefix + path.name
            if path.is_dir():
                yield from self._below(path, f"{key}/")
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                found = path.stat()
                regular = stat.S_ISREG(found.st_mode)
                yield Entry(key, found.st_size if regular else -1, _mtime_ns(found))
            else:
                self.ignored += 1

    def read(self, entry: Entry) -> bytes:
        return read_limited(self.folder / entry.key, MAX_IMAGE_BYTES)


class TarFiles:
    """Images that are members of tar files, read in place by their offsets."""

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self.folder, self.files, self.ignored = folder, files, 0

    def entries(self, *, every_file: bool = False) -> Iterator[Entry]:
        """Yields the images, or with `every_file` all files that are not hidden."""
        self.ignored = 0
        for file in self.files:
            changed = _mtime_ns(file.stat())
            try:
                with file.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as archive:
                    for member in archive:
                        name = member.name.removeprefix("./")
                        wanted = every_file or Path(name).suffix.lower() in IMAGE_SUFFIXES
                        if member.isfile() and wanted and not is_system(Path(name).name):
                            key = f"{file.name}/{name}"
                            yield Entry(key, member.size, changed, member.offset_data)
                        elif not member.isdir():
                            self.ignored += 1
                    # What is no header ends the archive without a word, as zeros do.
                    opened.seek(archive.offset)
                    if opened.read(tarfile.BLOCKSIZE).strip(b"\0"):
                        raise tarfile.ReadError(f"no header at byte {opened.tell()}")
            except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
                raise InputError(
                    f"{escape(str(file))}: is no complete uncompressed tar file ({error}); remove "
                    "it, or fetch it once more"
                ) from error

    def read(self, entry: Entry) -> bytes:
        name = entry.key.partition("/")[0]
        with (self.folder / name).open("rb") as file:
            file.seek(entry.offset)
            data = file.read(entry.size)
        if len(data) < entry.size:
            raise InputError(f"ends after {len(data)} of {entry.size} bytes")
        return data


class PreparedSet:
    """Images of a set that `experiments.prepare` wrote; a key is its split and number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ignored = folder, 0

    def entries(self) -> Iterator[Entry]:
        changed = _mtime_ns((self.folder / PREPARED_FILE).stat())
        for split, records in self.splits.items():
            for number in range(len(records)):
                yield Entry(f"{split}/{number}", 0, changed)

    def read(self, entry: Entry) -> bytes:
        split, _, number = entry.key.rpartition("/")
        data: bytes = self.splits[split][int(number)][IMAGE_FEATURE]
        return data

    @functools.cached_property
    def splits(self) -> dict[str, Any]:
        """Returns the records of each split by number, with images as encoded files."""
        import tensorflow_datasets as tfds  # takes seconds to import

        builder = tfds.builder_from_directory(os.fspath(self.folder))
        if IMAGE_FEATURE not in builder.info.features:
            raise InputError(
                f"{escape(str(self.folder))}: has the features {', '.join(builder.info.features)}; "
                f"expected {IMAGE_FEATURE!r} among them"
            )
        decoders = {IMAGE_FEATURE: tfds.decode.SkipDecoding()}
        return {
            split: builder.as_data_source(split=split, decoders=decoders)
            for split in sorted(builder.info.splits)
        }


def _mtime_ns(found: Any) -> int:
    """Returns the time of the last change; an object in a bucket has whole seconds."""
    return int(getattr(found, "st_mtime_ns", 0) or found.st_mtime * 1e9)
