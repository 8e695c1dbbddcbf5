"""A folder with a table, CSV, TSV or JSONL, of its images' captions, labels, or of questions.

Rows that name the same image, and question, are one record with several captions or answers.
Of labels each row is an example, and there is a table a split, such as test.csv.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import xxhash

from clip_jax.errors import InputError
from clip_jax.image_file import IMAGE_SUFFIXES
from clip_jax.text import check_encodable, escape, normalize_name
from experiments.data.sources.columns import choose_columns, find_column, get_value, read_texts
from experiments.data.sources.files import (
    are_two_files,
    find_inside,
    read_each_inside,
    read_inside,
)
from experiments.data.sources.groups import BY_KEY, group_value
from experiments.data.sources.labels import (
    VALIDATION,
    LabelledRows,
    LabelSource,
    first_unique,
    known_class_names,
    resolve_labels,
)
from experiments.data.sources.read_plan import ReadPlan, SourceConfig, file_fingerprints
from experiments.data.sources.records import BadRecord, Candidate, Ignored, Rejected
from experiments.data.sources.schema import COLUMNS, LABELS
from experiments.data.sources.table_plan import TableChunk, plan_chunks
from experiments.data.sources.tables import (
    JSON_LINES,
    TABLES,
    Table,
    TableRow,
    column_names,
    table_rows,
)

UNIT = "rows"
SPLITS = ("train", "test", *VALIDATION)


@dataclasses.dataclass(frozen=True)
class Entry:
    """Rows of one record, or, without a key, one row that is left out.

    head: the image, if the form has one, then each text of which there is one. texts: the
    captions or answers of each row. why: of a row that is left out, None for a blank one. group: of
    the first row.
    """

    rows: list[dict[str, Any]]
    key: str | None = None
    head: tuple[str, ...] = ()
    texts: tuple[list[Any], ...] = ()
    why: str | None = None
    group: Any = None


def matches(source: Path) -> bool:
    return source.suffix.lower() in TABLES if source.is_file() else bool(_tables(source))


def plan(config: SourceConfig) -> ReadPlan:
    """Chunks are of `chunk_records` records, in the order in which they first appear."""
    path = _find_table(config)
    if path.suffix.lower() != JSON_LINES:
        config = choose_columns(column_names(path), config, path)
    table = Table(path, config.image_column)
    chunks = plan_chunks(table, lambda row: _digest(row, config), config.chunk_records)
    return ReadPlan(config, file_fingerprints(path.parent, [path]), chunks)


def read(config: SourceConfig, chunk: TableChunk) -> Iterator[Candidate | Rejected | Ignored]:
    source = config.path
    folder = source if source.is_dir() else source.parent
    table = Table(folder / chunk.table, config.image_column, chunk.quoted)
    schema = config.schema
    entries = _entries(table.path, chunk.read(table), config)
    named = (entry.head[0] for entry in entries if entry.key is not None and schema.has_image)
    images = read_each_inside(folder, named)
    for entry in entries:
        where = entry.rows[0]
        if entry.key is None:
            yield Ignored("blank line") if entry.why is None else Rejected(where, entry.why)
            continue
        image = None
        if schema.has_image:
            image = next(images)
            if isinstance(image, BadRecord):
                yield Rejected(where, str(image), len(entry.rows))
                continue
        scalars = entry.head[schema.has_image :]
        texts: dict[str, Any] = dict(zip(schema.scalar_features, scalars, strict=True))
        texts[schema.repeated_feature] = [text for listed in entry.texts for text in listed]
        places = [
            row
            for row, listed in zip(entry.rows, entry.texts, strict=True)
            for _ in listed
        ]
        yield Candidate(entry.key, where, image, texts, places, len(entry.rows), entry.group)


def label_splits(folder: Path) -> list[str]:
    """Returns the names of tables whose first row has an image and a label."""
    return list(_label_tables(folder))


def read_labels(folder: Path, source: LabelSource, split: str) -> LabelledRows:
    """Reads one of `label_splits`. All of its images must be there."""
    tables = _label_tables(folder)
    rows = {name: list(_labelled(*table)) for name, table in tables.items()}
    table = tables[split][0]
    names, labels = resolve_labels(
        {name: [label for _, _, label in listed] for name, listed in rows.items()},
        split, known_class_names(folder, source), table,
    )  # fmt: skip
    for number, file, _ in rows[split]:
        try:
            find_inside(folder, file)
        except BadRecord as error:
            raise InputError(f"{table}: row {number}: {error}") from error
    files = [file for _, file, _ in rows[split]]

    def read_image(index: int) -> bytes:
        try:
            return read_inside(folder, files[index])
        except BadRecord as error:
            raise InputError(f"{table}: {error}") from error

    keys = [escape(normalize_name(file)) for file in files]
    numbered = [f"{key}#{row[0]}" for key, row in zip(keys, rows[split], strict=True)]
    return LabelledRows(names, labels, first_unique(keys, numbered), read_image)


def _label_tables(folder: Path) -> dict[str, tuple[Path, str, str]]:
    """Returns, by split, a table and its columns of images and labels, found in a good row."""
    found: dict[str, tuple[Path, str, str]] = {}
    for table in _tables(folder):
        try:
            row = next((row.value for row in table_rows(table) if isinstance(row.value, dict)), {})
        except InputError:
            if table.stem in SPLITS:
                raise
            continue  # of another concern than this set
        image, label = (find_column(row, column) for column in LABELS.columns.values())
        if not image or not label:
            continue
        if table.stem in found:
            first = found[table.stem][0].name
            raise InputError(f"{folder}: {first} and {table.name} are one split")
        found[table.stem] = table, image, label
    return found


def _labelled(table: Path, image: str, label: str) -> Iterator[tuple[int, str, Any]]:
    """Yields number, image and label; a row without either raises InputError."""
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


def _tables(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_file() and f.suffix.lower() in TABLES)


def _find_table(config: SourceConfig) -> Path:
    source = config.path
    if source.is_file():
        return source
    if not source.is_dir():
        raise InputError(f"{source}: no such folder")
    if config.table:
        table = source / config.table
        if not table.is_file() or table.resolve().parent != source.resolve():
            raise InputError(f"{table}: no such table in the folder")
        return table
    check_table(source, config)
    tables = _tables(source)
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise InputError(
            f"{source}: expected one table ({', '.join(TABLES)}), found {found}; "
            "name it with --table"
        )
    return tables[0]


def check_table(source: Path, config: SourceConfig) -> None:
    """Raises InputError that names the missing table of a folder with images."""
    if _tables(source):
        return
    images = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in source.rglob("*"))
    if images:
        columns = [column.default_names[0] for column in config.schema.columns.values()]
        others = ", ".join(f"list{suffix}" for suffix in TABLES if suffix != ".csv")
        raise InputError(
            f"{source}: holds {images} images and no table; expected {source / 'list.csv'} "
            f"(or {others}) with columns {', '.join(columns)}"
        )


def _digest(row: dict[str, Any] | BadRecord | None, config: SourceConfig) -> int | None:
    """Returns the digest of what a row's record is known by; None for a row that is left out."""
    if row is None:
        return None
    try:
        head, _ = _read_row(row, config)
    except BadRecord:
        return None
    if config.schema.has_image:
        head[0] = normalize_name(head[0])  # which spellings are one file is seen when it is read
    return xxhash.xxh3_64_intdigest("\0".join(head).encode("utf-8", "surrogatepass"))


def _entries(table: Path, rows: Iterable[TableRow], config: SourceConfig) -> list[Entry]:
    """Records in the order in which they first appear, then the rows that are left out."""
    schema = config.schema
    records: dict[tuple[str, ...], list[tuple[dict[str, Any], list[Any], Any]]] = {}
    left_out = []
    names = _ImageNames(table.parent)
    for row in rows:
        where = _where(table, row)
        if row.value is None:
            left_out.append(Entry([where]))
            continue
        try:
            head, several = _read_row(row.value, config)
        except BadRecord as error:
            left_out.append(Entry([where], why=str(error)))
            continue
        if schema.has_image:
            head[0] = names.spelling(head[0])
        group = group_value(row.value, config.group_by)
        if config.group_by in BY_KEY and schema.has_image:
            group = names.key(head[0])
        records.setdefault(tuple(head), []).append((where, several, group))
    entries = []
    for head, rows in records.items():
        places = [where for where, _, _ in rows]
        key = f"{table.name}:{places[0]['row']}" if schema.scalar_features else names.key(head[0])
        texts = tuple(several for _, several, _ in rows)
        entries.append(Entry(places, key, head, texts, group=rows[0][2]))
    return entries + left_out


def _where(table: Path, row: TableRow) -> dict[str, Any]:
    where = {"file": table.name, "row": row.number}
    return where if row.line == row.number else {**where, "line": row.line}


def _read_row(row: dict[str, Any] | BadRecord, config: SourceConfig) -> tuple[list[str], list[Any]]:
    """The head of an entry, and the captions or answers of a row; else BadRecord."""
    if isinstance(row, BadRecord):
        raise row
    schema = config.schema
    head = []
    if schema.has_image:
        image = get_value(row, COLUMNS["image"], config.image_column)
        if not isinstance(image, str) or not image.strip():
            raise BadRecord("image is missing")
        head.append(image.strip())
    texts = read_texts(row, config)
    for name in schema.scalar_features:
        if not isinstance(texts[name], str):
            raise BadRecord(f"{COLUMNS[name].noun} is no text")
        head.append(texts[name])
    if not texts[schema.repeated_feature]:
        raise BadRecord(f"{COLUMNS[schema.repeated_feature].noun} is missing")
    return head, texts[schema.repeated_feature]


class _ImageNames:
    """Keep one spelling of each image's name: rows may name it in NFC and in NFD."""

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
