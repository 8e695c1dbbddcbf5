"""Images with texts as items of bulk work.

a.tar: 7.jpg, 7.txt            consecutive members of one key, as webdataset groups them; the
                               text is in .txt, or a field of .json
prepared set                   its features image and captions
folder with list.csv           a row each, of the columns image and caption; .tsv, .jsonl too
folder without a table         7.jpg beside 7.txt
images, and a folder that      with its captions, by key
`rudolph_jax caption` wrote
"""

from __future__ import annotations

import contextlib
import json
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from clip_jax.bulk.images import (
    PreparedRecords,
    TarFileGroups,
    image_record,
    open_images,
    unreadable,
)
from clip_jax.bulk.items import Item, Listing, Record, Source, digest, sample_name
from clip_jax.bulk.output import ROWS, image_extension, read_rows
from clip_jax.bulk.pieces import read_settings
from clip_jax.bulk.prompts import (
    DELIMITERS,
    JSON_LINES,
    TEXT_COLUMNS,
    choose_column,
    table_rows,
    texts_of,
)
from clip_jax.errors import InputError
from clip_jax.image_file import IMAGE_SUFFIXES
from clip_jax.index.sources import (
    MAX_IMAGE_BYTES,
    Entry,
    ImageFolder,
    PreparedSet,
    TarFiles,
    open_source,
)
from clip_jax.input_files import read_limited
from clip_jax.paths import as_path
from clip_jax.system_folders import is_system
from clip_jax.text import decode_text, escape, parse_json

IMAGE_COLUMNS = ("image", "image_path", "path", "file_name", "filename", "filepath", "file")
IMAGE_EXTENSIONS = tuple(suffix[1:] for suffix in IMAGE_SUFFIXES)
TEXT, JSON = "txt", "json"


def open_pairs(path: str | Path, column: str = "", captions: str | Path | None = None) -> Source:
    """Returns the images with texts at a path.

    column: of the texts in a table, or their field in .json; "": the first of TEXT_COLUMNS.
    captions: a folder that `rudolph_jax caption` wrote for the same source: texts for its images.
    """
    if captions is not None:
        return CaptionedImages(open_images(path), as_path(captions))
    found = open_source(path)
    if isinstance(found, TarFiles):
        return TarPairs(found, column)
    if isinstance(found, PreparedSet):
        return PreparedRecords(found, _prepared_record)
    assert isinstance(found, ImageFolder)
    return FolderPairs(found, column)


class TarPairs(TarFileGroups):
    """Samples of tar files, a group each."""

    def __init__(self, tars: TarFiles, column: str) -> None:
        super().__init__(tars)
        self._column = column
        self.fingerprint = digest(self.fingerprint, column)

    def list_tar(self, group: int, tar: TarFiles) -> Listing:
        samples: list[tuple[str, list[tuple[str, Entry]]]] = []
        damage = ""
        try:
            for entry in tar.entries(every_file=True):
                key, extension = split_member(entry.key)
                if not samples or samples[-1][0] != key:
                    samples.append((key, []))
                samples[-1][1].append((extension, entry))
        except InputError as error:
            damage = str(error)
        file = self.files[group].name

        def items(numbers: range) -> list[Item]:
            found = []
            for number in numbers:
                if number == len(samples):
                    found.append(Item(file, group, number, "", unreadable(damage)))
                    continue
                key, members = samples[number]
                name = key.partition("/")[2]
                found.append(Item(key, group, number, name, self._reader(tar, members)))
            return found

        return Listing(len(samples) + bool(damage), items, tar.ignored)

    def _reader(self, tar: TarFiles, found: list[tuple[str, Entry]]) -> Callable[[], Record]:
        def read() -> Record:
            entries = dict(found)
            if len(entries) < len(found):
                raise InputError("has two members of one extension")
            kinds = {extension.lower(): extension for extension in entries}
            image = next((kinds[kind] for kind in IMAGE_EXTENSIONS if kind in kinds), None)
            if image is None:
                raise InputError("has no image beside it")
            members = {extension: tar.read(entry) for extension, entry in entries.items()}
            if TEXT in members:
                texts = texts_of(decode_text(members[TEXT], TEXT).strip())
            elif JSON in members:
                about = parse_json(members[JSON], JSON)
                if not isinstance(about, dict):
                    raise InputError("json holds no object")
                name = choose_column(about, self._column, TEXT_COLUMNS, JSON, "--text-column")
                texts = texts_of(about[name])
            else:
                raise InputError("has no text beside it")
            return Record(members[image], texts, members)

        return read


class FolderPairs:
    """Images of a folder with the rows of its one table, or with the .txt files beside them."""

    groups, has_files = 1, False

    def __init__(self, images: ImageFolder, column: str) -> None:
        self._folder = images.folder
        self._rows: list[tuple[Any, Any]] = []  # image, texts or the file of the text
        self._ignored = 0
        files = (each for each in self._folder.iterdir() if not is_system(each.name))
        tables = sorted(file for file in files if file.suffix.lower() in (*DELIMITERS, JSON_LINES))
        if len(tables) > 1:
            raise InputError(
                f"{escape(str(self._folder))}: holds the tables "
                f"{', '.join(escape(table.name) for table in tables)}; expected one"
            )
        self._table = tables[0] if tables else None
        if self._table is not None:
            rows, name = table_rows(self._table), escape(str(self._table))
            first = rows[0] if rows else {}
            image = choose_column(first, "", IMAGE_COLUMNS, name, "such a header")
            text = choose_column(first, column, TEXT_COLUMNS, name, "--text-column")
            self._rows = [(row.get(image), row.get(text)) for row in rows]
            self.fingerprint = digest(self._table.read_bytes(), column)
        else:
            self._rows = [(entry.key, None) for entry in images.entries()]
            self.fingerprint = digest(*(key for key, _ in self._rows))
            self._ignored = images.ignored
        if not self._rows:
            raise InputError(
                f"{escape(str(self._folder))}: holds no images with texts; expected a table "
                "(.csv, .tsv, .jsonl), or a .txt beside each image"
            )

    @contextlib.contextmanager
    def open(self, group: int) -> Iterator[Listing]:
        yield Listing(len(self._rows), self._items, self._ignored)

    def _items(self, numbers: range) -> list[Item]:
        return [
            Item(self._key(number), 0, number, sample_name(0, number), self._reader(number))
            for number in numbers
        ]

    def _key(self, number: int) -> str:
        image = self._rows[number][0]
        if self._table is None:
            return str(image)
        return f"{image}#{number + 1}" if isinstance(image, str) else f"row {number + 1}"

    def _reader(self, number: int) -> Callable[[], Record]:
        image, cell = self._rows[number]

        def read() -> Record:
            if self._table is not None:
                texts = texts_of(cell)
                file = _inside(self._folder, image)
            else:
                file = self._folder / image
                beside = file.with_suffix(f".{TEXT}")
                if not beside.is_file():
                    raise InputError("has no text beside it")
                texts = texts_of(decode_text(read_limited(beside, MAX_IMAGE_BYTES), TEXT).strip())
            return pair_record(read_limited(file, MAX_IMAGE_BYTES), texts)

        return read


class CaptionedImages:
    """Images with the captions that bulk work has made for them."""

    def __init__(self, images: Source, captions: Path) -> None:
        self._images, self._captions = images, captions
        settings = read_settings(captions)
        if settings.get("command") != "caption" or settings["source"] != images.fingerprint:
            raise InputError(
                f"{escape(str(captions))}: holds no captions of these images; expected the "
                "folder that rudolph_jax caption wrote for this very source"
            )
        self._piece_items = settings["piece_items"]
        self.groups, self.has_files = images.groups, images.has_files
        self.fingerprint = digest(images.fingerprint, str(settings))

    @contextlib.contextmanager
    def open(self, group: int) -> Iterator[Listing]:
        with self._images.open(group) as listing:

            def items(numbers: range) -> list[Item]:
                found = listing.items(numbers)
                captions = self._read(group, numbers)
                return [
                    Item(item.key, group, item.number, item.name, _captioned(item, captions))
                    for item in found
                ]

            yield Listing(listing.count, items, listing.ignored)

    def _read(self, group: int, numbers: range) -> dict[str, str]:
        """Returns the best caption of each image, by key, of the pieces that hold these items."""
        found: dict[str, str] = {}
        size = self._piece_items
        for piece in range(numbers.start // size, -(-numbers.stop // size)):
            file = self._captions / ROWS / f"{group:05d}-{piece:05d}.parquet"
            if not file.exists():
                raise InputError(f"{escape(str(file))}: is missing; finish the captions first")
            for row in read_rows(file, ("key", "caption")):
                found.setdefault(row["key"], row["caption"])  # the first is the best
        return found


def pair_record(image: bytes, texts: tuple[str, ...]) -> Record:
    """Returns an image with its texts; several stand in .json, as a list."""
    members = {image_extension(image): image}
    if len(texts) == 1:
        members[TEXT] = texts[0].encode()
    else:
        members[JSON] = json_bytes({"captions": list(texts)})
    return Record(image, texts, members)


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """Returns a JSON object as UTF-8."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def split_member(name: str) -> tuple[str, str]:
    """Splits a tar member's name at the first dot of its base, as webdataset does."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def _captioned(item: Item, captions: Mapping[str, str]) -> Callable[[], Record]:
    def read() -> Record:
        if escape(item.key) not in captions:
            raise InputError("has no caption")
        image = item.read().image
        assert image is not None
        return pair_record(image, (captions[escape(item.key)],))

    return read


def _prepared_record(found: dict) -> Record:
    captions = found.get("captions")
    if captions is None:
        raise InputError("has no captions")
    texts = [
        each.decode() if isinstance(each, bytes) else str(each) for each in np.atleast_1d(captions)
    ]
    return pair_record(image_record(found["image"]).image or b"", texts_of(texts))


def _inside(folder: Path, name: Any) -> Path:
    """Returns the file of a table's path, which must not leave the folder."""
    if not isinstance(name, str) or not name.strip():
        raise InputError("has no image")
    path = PurePosixPath(name.strip())
    if path.is_absolute() or ".." in path.parts:
        raise InputError("path leaves the folder")
    forms = (name.strip(), *(unicodedata.normalize(form, name.strip()) for form in ("NFC", "NFD")))
    return next(
        (folder / form for form in forms if (folder / form).exists()), folder / name.strip()
    )
