"""A folder of pictures with a table of their captions: CSV, TSV or JSONL.

Rows that name the same picture are one record with several captions.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from clip_jax.errors import InputError
from experiments.data.sources.columns import (
    CAPTION_COLUMNS,
    IMAGE_COLUMNS,
    caption_list,
    choose_column,
    look_up,
    read_inside,
)
from experiments.data.sources.plan import Options, Plan, stamps
from experiments.data.sources.records import BadRecord, Candidate, Rejected, printable

JSON_LINES = ".jsonl"
TABLES = (".csv", ".tsv", JSON_LINES)
LONGEST_CELL = 2**24  # characters

# (picture, [(row, captions)]), or (None, [(row, why it is left out)])
Entry = tuple[str | None, list[tuple[int, Any]]]


def fits(source: Path) -> bool:
    return source.suffix.lower() in TABLES if source.is_file() else bool(_tables(source))


def plan(options: Options) -> Plan:
    """Pieces are lists of entries, in the order in which pictures first appear."""
    table = _find_table(options)
    if table.suffix.lower() != JSON_LINES:
        options = _name_columns(table, options)
    entries = list(_entries(table, options))
    size = options.piece_records
    pieces = [(table.name, entries[i : i + size]) for i in range(0, len(entries), size)]
    return Plan(options, stamps(table.parent, [table]), pieces)


def read(options: Options, piece: tuple[str, list[Entry]]) -> Iterator[Candidate | Rejected]:
    name, entries = piece
    source = Path(options.source)
    folder = source if source.is_dir() else source.parent
    for picture, rows in entries:
        if picture is None:
            yield from (Rejected({"file": name, "row": row}, why) for row, why in rows)
            continue
        where = {"file": name, "row": rows[0][0]}
        try:
            image = read_inside(folder, picture)
        except BadRecord as error:
            yield Rejected(where, printable(str(error)))
            continue
        captions = [caption for _, listed in rows for caption in listed]
        places = [{"file": name, "row": row} for row, listed in rows for _ in listed]
        yield Candidate(picture, where, image, captions, places)


def _tables(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in TABLES)


def _find_table(options: Options) -> Path:
    source = Path(options.source)
    if source.is_file():
        return source
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    if options.table:
        table = source / options.table
        if not table.is_file() or table.resolve().parent != source.resolve():
            raise InputError(f"{table}: no such table in the folder")
        return table
    tables = _tables(source)
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise InputError(
            f"{source}: expected one table ({', '.join(TABLES)}), found {found}; "
            "name it with --table"
        )
    return tables[0]


def _entries(table: Path, options: Options) -> Iterator[Entry]:
    captions_of: dict[str, list[tuple[int, Any]]] = {}
    bad = []
    for number, row in table_rows(table):
        try:
            if isinstance(row, BadRecord):
                raise row
            picture = look_up(row, options.image_column, IMAGE_COLUMNS)
            if not isinstance(picture, str) or not picture.strip():
                raise BadRecord("picture is missing")
            captions = caption_list(look_up(row, options.caption_column, CAPTION_COLUMNS))
        except BadRecord as error:
            bad.append((number, printable(str(error))))
        else:
            captions_of.setdefault(picture.strip(), []).append((number, captions))
    yield from captions_of.items()
    if bad:
        yield None, bad


def table_rows(table: Path) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """The rows with their numbers, as a spreadsheet or an editor counts lines."""
    return (_json_rows if table.suffix.lower() == JSON_LINES else _csv_rows)(table)


def _name_columns(table: Path, options: Options) -> Options:
    with _open(table) as file:
        names = _names(_csv_reader(table, file))
    return dataclasses.replace(
        options,
        image_column=choose_column(
            names, options.image_column, IMAGE_COLUMNS, "--image-column", table
        ),
        caption_column=choose_column(
            names, options.caption_column, CAPTION_COLUMNS, "--caption-column", table
        ),
    )


def _csv_rows(table: Path) -> Iterator[tuple[int, Any]]:
    """Numbered as a spreadsheet does: the names of the columns are row 1."""
    with _open(table) as file:
        reader = _csv_reader(table, file)
        names = _names(reader)
        for number in itertools.count(2):
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, BadRecord(f"row cannot be read: {error}")
                continue
            if cells:
                yield number, dict(zip(names, cells, strict=False))


def _open(table: Path) -> TextIO:
    # utf-8-sig would refuse what is not UTF-8 as a whole.
    file = table.open(encoding="utf-8", errors="surrogateescape", newline="")
    if file.read(1) != "\ufeff":
        file.seek(0)
    return file


def _csv_reader(table: Path, file: TextIO) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST_CELL)
    return csv.reader(file, delimiter="\t" if table.suffix.lower() == ".tsv" else ",")


def _names(reader: Iterator[list[str]]) -> list[str]:
    return [name.strip() for name in next(reader, [])]


def _json_rows(table: Path) -> Iterator[tuple[int, Any]]:
    with table.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig", "surrogateescape"))
            except (ValueError, RecursionError) as error:
                yield number, BadRecord(f"row is not JSON: {error}")
                continue
            yield number, row if isinstance(row, dict) else BadRecord("row is no JSON object")
