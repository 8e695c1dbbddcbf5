"""Texts of a file as items of bulk work: a line each, or a column of CSV, TSV, JSONL or Parquet."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from clip_jax.bulk.items import Item, Listing, Record, digest, sample_name
from clip_jax.bulk.output import read_table
from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.text import decode_text, escape, parse_json

TEXT_COLUMNS = ("caption", "captions", "text", "texts", "title", "description")
PROMPT_COLUMNS = ("prompt", "prompts", *TEXT_COLUMNS)
DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_LINES, PARQUET = ".jsonl", ".parquet"


class PromptFile:
    """The texts of a file, one group. Blank lines are ignored; all are held in memory."""

    groups, has_files = 1, False

    def __init__(self, path: str | Path, column: str = "") -> None:
        """column: of a table; "": the first of PROMPT_COLUMNS that is there."""
        self._file = as_path(path)
        data = self._file.read_bytes()
        self.fingerprint = digest(data, column)
        name = escape(str(self._file))
        self._texts: list[tuple[int, Any]] = []
        if _is_table(self._file):
            rows = table_rows(self._file)
            column = choose_column(
                rows[0] if rows else {}, column, PROMPT_COLUMNS, name, "--column"
            )
            self._texts = [(n, row.get(column)) for n, row in enumerate(rows, 1)]
            self._ignored = 0
        else:
            if column:
                raise InputError(
                    f"--column is {column!r}, and {name} is text; expected a table: .csv, .tsv, "
                    f"{JSON_LINES} or {PARQUET}"
                )
            lines = decode_text(data, name).replace("\r\n", "\n").split("\n")
            lines = lines[:-1] if lines[-1] == "" else lines
            self._texts = [(n, line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
            self._ignored = len(lines) - len(self._texts)
        if not self._texts:
            raise InputError(f"{name}: holds no text; expected a prompt a line, or a table")

    @contextlib.contextmanager
    def open(self, group: int) -> Iterator[Listing]:
        yield Listing(len(self._texts), self._items, self._ignored)

    def _items(self, numbers: range) -> list[Item]:
        return [
            Item(str(key), 0, number, sample_name(0, number), _reader(text))
            for number in numbers
            for key, text in [self._texts[number]]
        ]


def table_rows(file: Path) -> list[dict[str, Any]]:
    """Reads the rows of a CSV, TSV, JSONL or Parquet file; InputError where that fails."""
    name, suffix = escape(str(file)), file.suffix.lower()
    if suffix == PARQUET:
        return read_table(file)
    text = decode_text(file.read_bytes(), name)
    if suffix == JSON_LINES:
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                row = parse_json(line, f"{name}: line {number}")
                if not isinstance(row, dict):
                    raise InputError(f"{name}: line {number} holds no object")
                rows.append(row)
        return rows
    try:
        return list(
            csv.DictReader(io.StringIO(text, newline=""), delimiter=DELIMITERS[suffix], strict=True)
        )
    except csv.Error as error:
        raise InputError(f"{name}: cannot be read as {suffix[1:].upper()} ({error})") from error


def choose_column(
    row: Mapping[str, Any], wanted: str, usual: tuple[str, ...], place: str, option: str
) -> str:
    """Returns `wanted`, or else the first usual name among a row's; InputError where none is."""
    found = next((name for name in ([wanted] if wanted else usual) if name in row), None)
    if found is None:
        columns = ", ".join(escape(str(name)) for name in row) or "none"
        raise InputError(
            f"{place}: has the columns {columns}; expected {wanted or ', '.join(usual)}: name one "
            f"with {option}"
        )
    return found


def texts_of(value: Any) -> tuple[str, ...]:
    """Returns the texts of a cell, one or a list; InputError where it holds none."""
    several = value if isinstance(value, list | tuple) else [value]
    texts = tuple(each for each in several if isinstance(each, str) and each.strip())
    if not texts:
        raise InputError("has no text")
    return texts


def _reader(text: Any) -> Callable[[], Record]:
    return lambda: Record(texts=texts_of(text)[:1])


def _is_table(file: Path) -> bool:
    return file.suffix.lower() in (*DELIMITERS, JSON_LINES, PARQUET)
