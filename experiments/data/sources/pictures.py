"""A folder with a table, CSV, TSV or JSONL, of its pictures' captions, or of questions.

Rows that name the same picture, and question, are one record with several captions or answers.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from clip_jax.errors import InputError
from experiments.data.sources.columns import (
    choose_columns,
    look_up,
    read_inside,
    read_texts,
)
from experiments.data.sources.forms import COLUMNS
from experiments.data.sources.plan import Options, Plan, stamps
from experiments.data.sources.records import BadRecord, Candidate, Rejected, printable

JSON_LINES = ".jsonl"
TABLES = (".csv", ".tsv", JSON_LINES)
LONGEST_CELL = 2**24  # characters

# ([picture, if the form has one, then each text of which there is one],
#  [(row, captions or answers)]), or (None, [(row, why it is left out)])
Entry = tuple[list[str] | None, list[tuple[int, Any]]]


def fits(source: Path) -> bool:
    return source.suffix.lower() in TABLES if source.is_file() else bool(_tables(source))


def plan(options: Options) -> Plan:
    """Pieces are lists of entries, in the order in which they first appear."""
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
    form = options.what
    for head, rows in entries:
        if head is None:
            yield from (Rejected({"file": name, "row": row}, why) for row, why in rows)
            continue
        where = {"file": name, "row": rows[0][0]}
        key, image = f"{name}:{rows[0][0]}", None
        if form.picture:
            try:
                image = read_inside(folder, head[0])
            except BadRecord as error:
                yield Rejected(where, printable(str(error)))
                continue
        if not form.single:
            key = head[0]
        texts: dict[str, Any] = dict(zip(form.single, head[form.picture :], strict=True))
        texts[form.several] = [text for _, listed in rows for text in listed]
        places = [{"file": name, "row": row} for row, listed in rows for _ in listed]
        yield Candidate(key, where, image, texts, places)


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
    form = options.what
    rows_of: dict[tuple[str, ...], list[tuple[int, Any]]] = {}
    bad = []
    for number, row in table_rows(table):
        try:
            if isinstance(row, BadRecord):
                raise row
            head = []
            if form.picture:
                head.append(look_up(row, options.image_column, COLUMNS["image"].usual))
                if not isinstance(head[0], str) or not head[0].strip():
                    raise BadRecord("picture is missing")
                head[0] = head[0].strip()
            texts = read_texts(row, options)
            for name in form.single:
                head.append(texts[name])
                if not isinstance(texts[name], str):
                    raise BadRecord(f"{COLUMNS[name].noun} is no text")
        except BadRecord as error:
            bad.append((number, printable(str(error))))
        else:
            rows_of.setdefault(tuple(head), []).append((number, texts[form.several]))
    yield from ((list(head), rows) for head, rows in rows_of.items())
    if bad:
        yield None, bad


def table_rows(table: Path) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """The rows with their numbers, as a spreadsheet or an editor counts lines."""
    return (_json_rows if table.suffix.lower() == JSON_LINES else _csv_rows)(table)


def _name_columns(table: Path, options: Options) -> Options:
    with _open(table) as file:
        return choose_columns(_names(_csv_reader(table, file)), options, table)


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
