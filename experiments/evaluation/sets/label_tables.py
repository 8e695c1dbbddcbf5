"""A folder of images with a table a split, test.csv, .tsv or .jsonl, of images and labels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.text import check_encodable, escape, normalize_name
from experiments.data.sources.forms import IMAGE_COLUMNS
from experiments.data.sources.inside import find_inside, read_inside
from experiments.data.sources.records import BadRecord
from experiments.data.sources.tables import TABLES, table_rows
from experiments.evaluation.sets.labelled import Rows, first_unique
from experiments.evaluation.sets.labels import LABEL_COLUMNS, find_column, known_names, resolve
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.split_names import VALIDATION, find_split

SPLITS = ("train", "test", *VALIDATION)


def splits(folder: Path) -> list[str]:
    """The names of tables whose first row has an image and a label."""
    return list(_tables(folder))


def read(folder: Path, record: SetRecord, split: str) -> Rows:
    """Pictures are looked for at once, and read when they are asked for."""
    tables = _tables(folder)
    name = find_split(folder, record, split, tables)
    rows = {split: list(_rows(table)) for split, table in tables.items()}
    values = {split: [label for _, _, label in listed] for split, listed in rows.items()}
    names, labels = resolve(values, name, known_names(folder, record), tables[name])
    files = [file for _, file, _ in rows[name]]
    for number, file, _ in rows[name]:
        try:
            find_inside(folder, file)
        except BadRecord as error:
            raise InputError(f"{tables[name]}: row {number}: {error}") from error

    def image(index: int) -> bytes:
        try:
            return read_inside(folder, files[index])
        except BadRecord as error:
            raise InputError(f"{tables[name]}: {error}") from error

    keys = [escape(normalize_name(file)) for file in files]
    numbered = [f"{key}#{row[0]}" for key, row in zip(keys, rows[name], strict=True)]
    return Rows(names, labels, first_unique(keys, numbered), image)


def _tables(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for table in sorted(folder.iterdir()):
        if not table.is_file() or table.suffix.lower() not in TABLES:
            continue
        try:
            if not _columns(table):
                continue
        except InputError:
            if table.stem in SPLITS:
                raise
            continue  # of another concern than this set
        if table.stem in found:
            raise InputError(f"{folder}: {found[table.stem].name} and {table.name} are one split")
        found[table.stem] = table
    return found


def _columns(table: Path) -> tuple[str, str] | None:
    """Of image and label, as the first good row has them."""
    good = (row.value for row in table_rows(table) if isinstance(row.value, Mapping))
    for row in itertools.islice(good, 1):
        image, label = (find_column(row, usual) for usual in (IMAGE_COLUMNS, LABEL_COLUMNS))
        return (image, label) if image and label else None
    return None


def _rows(table: Path) -> Iterator[tuple[int, str, Any]]:
    """Number, image and label; a row without either raises InputError."""
    image, label = _columns(table)
    for row in table_rows(table, image):
        if row.value is None:
            continue
        if isinstance(row.value, BadRecord):
            raise InputError(f"{table}: row {row.number}: {row.value}")
        file, value = row.value.get(image), row.value.get(label)
        if not isinstance(file, str) or not file.strip() or value in (None, ""):
            raise InputError(f"{table}: row {row.number}: {image} or {label} is missing")
        if isinstance(value, str):
            check_encodable(value, f"{table}: row {row.number}: {label}")
            value = normalize_name(value)
        yield row.number, file.strip(), value
