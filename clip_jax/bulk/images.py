"""Images of a folder, of tar files or of a prepared set, as items of bulk work."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from clip_jax.bulk.items import Item, Listing, Record, Source, digest, sample_name
from clip_jax.bulk.output import image_extension
from clip_jax.errors import InputError
from clip_jax.index.sources import (
    PREPARED_FILE,
    Entry,
    ImageFolder,
    PreparedSet,
    TarFiles,
    open_source,
)
from clip_jax.paths import local_copy
from clip_jax.text import escape


def open_images(path: str | Path) -> Source:
    """Returns the images at a path: a folder of images or of .tar files, a .tar, a prepared set.

    Anything else raises InputError.
    """
    found = open_source(path)
    if isinstance(found, TarFiles):
        return TarImages(found)
    if isinstance(found, PreparedSet):
        return PreparedRecords(found, _image_record)
    assert isinstance(found, ImageFolder)
    return FolderImages(found)


class FolderImages:
    """The images below a folder, one group. Their names are held in memory."""

    groups, has_files = 1, False

    def __init__(self, folder: ImageFolder) -> None:
        self._folder = folder
        self._entries = list(folder.entries())
        if not self._entries:
            raise InputError(
                f"{escape(str(folder.folder))}: holds no image; {folder.ignored} other files are "
                "ignored"
            )
        self.fingerprint = digest(*(f"{entry.key} {entry.size}" for entry in self._entries))

    @contextlib.contextmanager
    def open(self, group: int) -> Iterator[Listing]:
        yield Listing(len(self._entries), self._items, self._folder.ignored)

    def _items(self, numbers: range) -> list[Item]:
        return [
            Item(entry.key, 0, number, sample_name(0, number), self._reader(entry))
            for number, entry in zip(
                numbers, self._entries[numbers.start : numbers.stop], strict=True
            )
        ]

    def _reader(self, entry: Entry) -> Callable[[], Record]:
        def read() -> Record:
            if entry.size < 0:  # reading a pipe would wait for its writer
                raise InputError("not a regular file")
            return image_record(self._folder.read(entry))

        return read


class TarFileGroups:
    """Tar files, a group each; one in a bucket is copied while its items are worked on."""

    has_files = True

    def __init__(self, tars: TarFiles) -> None:
        self.files = tars.files
        self.groups = len(self.files)
        self.fingerprint = digest(*(f"{file.name} {file.stat().st_size}" for file in self.files))

    @contextlib.contextmanager
    def open(self, group: int) -> Iterator[Listing]:
        with local_copy(self.files[group]) as local:
            yield self.list_tar(group, TarFiles(local.parent, [local]))

    def list_tar(self, group: int, tar: TarFiles) -> Listing:
        """Lists the items of one tar, a local file."""
        raise NotImplementedError


class TarImages(TarFileGroups):
    """The images of tar files. The damaged end of one is an item that cannot be read."""

    def list_tar(self, group: int, tar: TarFiles) -> Listing:
        entries: list[Entry] = []
        damage = ""
        try:
            entries.extend(tar.entries())
        except InputError as error:
            damage = str(error)
        file = self.files[group].name

        def items(numbers: range) -> list[Item]:
            found = [
                Item(entry.key, group, number, sample_name(group, number), reader(entry))
                for number, entry in zip(numbers, entries[numbers.start : numbers.stop])  # noqa: B905
            ]
            if len(found) < len(numbers):
                number = len(entries)
                found.append(Item(file, group, number, "", unreadable(damage)))
            return found

        def reader(entry: Entry) -> Callable[[], Record]:
            return lambda: image_record(tar.read(entry))

        return Listing(len(entries) + bool(damage), items, tar.ignored)


class PreparedRecords:
    """Records of a prepared set, a group a split."""

    has_files = False

    def __init__(self, found: PreparedSet, record: Callable[[dict], Record]) -> None:
        self._splits, self._record = list(found.splits.items()), record
        self.groups = len(self._splits)
        self.fingerprint = digest((found.folder / PREPARED_FILE).read_bytes())

    @contextlib.contextmanager
    def open(self, group: int) -> Iterator[Listing]:
        split, records = self._splits[group]

        def reader(number: int) -> Callable[[], Record]:
            return lambda: self._record(records[number])

        def items(numbers: range) -> list[Item]:
            return [
                Item(f"{split}/{number}", group, number, sample_name(group, number), reader(number))
                for number in numbers
            ]

        yield Listing(len(records), items)


def image_record(data: bytes) -> Record:
    """Returns the record of an encoded image."""
    return Record(data, members={image_extension(data): data})


def unreadable(why: str) -> Callable[[], Record]:
    """Returns what reads an item that cannot be read."""

    def read() -> Record:
        raise InputError(why)

    return read


def _image_record(found: dict) -> Record:
    return image_record(found["image"])
