"""A folder with a table, CSV, TSV or JSONL, of its pictures' captions, or of questions.

Rows that name the same image, and question, are one record with several captions or answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.text import normalize_name
from experiments.data.sources.columns import choose_columns, look_up, read_texts
from experiments.data.sources.forms import COLUMNS
from experiments.data.sources.inside import are_two_files, read_inside
from experiments.data.sources.plan import Options, Plan, stamps
from experiments.data.sources.records import BadRecord, Candidate, Ignored, Rejected
from experiments.data.sources.tables import (
    JSON_LINES,
    TABLES,
    TableRow,
    column_names,
    table_rows,
)

UNIT = "rows"


@dataclasses.dataclass(frozen=True)
class Entry:
    """Rows of one record, or, without a key, one row that is left out.

    head: the image, if the form has one, then each text of which there is one. texts: the
    captions or answers of each row. why: of a row that is left out, None for a blank one.
    """

    rows: list[dict[str, Any]]
    key: str | None = None
    head: tuple[str, ...] = ()
    texts: tuple[list[Any], ...] = ()
    why: str | None = None


def fits(source: Path) -> bool:
    return source.suffix.lower() in TABLES if source.is_file() else bool(_tables(source))


def plan(options: Options) -> Plan:
    """Pieces are lists of entries, in the order in which they first appear."""
    table = _find_table(options)
    if table.suffix.lower() != JSON_LINES:
        options = choose_columns(column_names(table), options, table)
    entries = _entries(table, options)
    size = options.piece_records
    pieces = [entries[i : i + size] for i in range(0, len(entries), size)]
    return Plan(options, stamps(table.parent, [table]), pieces)


def read(options: Options, piece: list[Entry]) -> Iterator[Candidate | Rejected | Ignored]:
    source = Path(options.source)
    folder = source if source.is_dir() else source.parent
    form = options.what
    for entry in piece:
        where = entry.rows[0]
        if entry.key is None:
            yield Ignored("blank line") if entry.why is None else Rejected(where, entry.why)
            continue
        image = None
        if form.picture:
            try:
                image = read_inside(folder, entry.head[0])
            except BadRecord as error:
                yield Rejected(where, str(error), len(entry.rows))
                continue
        texts: dict[str, Any] = dict(zip(form.single, entry.head[form.picture :], strict=True))
        texts[form.several] = [text for listed in entry.texts for text in listed]
        places = [
            row
            for row, listed in zip(entry.rows, entry.texts, strict=True)
            for _ in listed
        ]
        yield Candidate(entry.key, where, image, texts, places, len(entry.rows))


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


def _entries(table: Path, options: Options) -> list[Entry]:
    """Records in the order in which they first appear, then the rows that are left out."""
    form = options.what
    records: dict[tuple[str, ...], list[tuple[dict[str, Any], list[Any]]]] = {}
    left_out = []
    names = _ImageNames(table.parent)
    for row in table_rows(table, options.image_column):
        where = _where(table, row)
        if row.value is None:
            left_out.append(Entry([where]))
            continue
        try:
            head, several = _read_row(row.value, options)
        except BadRecord as error:
            left_out.append(Entry([where], why=str(error)))
            continue
        if form.picture:
            head[0] = names.spelling(head[0])
        records.setdefault(tuple(head), []).append((where, several))
    entries = []
    for head, rows in records.items():
        places = [where for where, _ in rows]
        key = f"{table.name}:{places[0]['row']}" if form.single else names.key(head[0])
        entries.append(Entry(places, key, head, tuple(several for _, several in rows)))
    return entries + left_out


def _where(table: Path, row: TableRow) -> dict[str, Any]:
    where = {"file": table.name, "row": row.number}
    return where if row.line == row.number else {**where, "line": row.line}


def _read_row(row: dict[str, Any] | BadRecord, options: Options) -> tuple[list[str], list[Any]]:
    """The head of an entry, and the captions or answers of a row; else BadRecord."""
    if isinstance(row, BadRecord):
        raise row
    form = options.what
    head = []
    if form.picture:
        image = look_up(row, options.image_column, COLUMNS["image"].usual)
        if not isinstance(image, str) or not image.strip():
            raise BadRecord("picture is missing")
        head.append(image.strip())
    texts = read_texts(row, options)
    for name in form.single:
        if not isinstance(texts[name], str):
            raise BadRecord(f"{COLUMNS[name].noun} is no text")
        head.append(texts[name])
    if not texts[form.several]:
        raise BadRecord(f"{COLUMNS[form.several].noun} is missing")
    return head, texts[form.several]


class _ImageNames:
    """One spelling of each image's name: rows may name it in NFC and in NFD."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._spellings: dict[str, list[str]] = {}

    def spelling(self, name: str) -> str:
        """The first that was seen, unless the folder has files of both names."""
        known = self._spellings.setdefault(normalize_name(name), [name])
        for other in known:
            if name == other or not are_two_files(self._folder, name, other):
                return other
        known.append(name)
        return name

    def key(self, name: str) -> str:
        """The name in NFC; the second file of the same has a number."""
        place = self._spellings[normalize_name(name)].index(name)
        return normalize_name(name) + (f"#{place + 1}" if place else "")
