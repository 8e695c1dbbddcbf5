"""pyarrow, which only some sources need."""

from __future__ import annotations

import importlib
import types
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from experiments.data.sources.columns import read_image, read_texts
from experiments.data.sources.groups import group_column, group_value
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.records import BadRecord, Candidate, Rejected


def import_arrow(module: str) -> types.ModuleType:
    """A module of pyarrow; InputError that says what to install where there is none."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            "Parquet and Arrow files need the package 'pyarrow', which is not installed: "
            "pip install 'rudolph-jax[prepare]'"
        ) from error


def runs_of(rows: list[int], most: int) -> Iterator[tuple[list[int], int]]:
    """Consecutive groups of at most so many rows together, or one alone, and their first row.

    rows: of each group.
    """
    run: list[int] = []
    first = total = 0
    for group, count in enumerate(rows):
        if run and total + count > most:
            yield run, first
            run, first, total = [], first + total, 0
        run.append(group)
        total += count
    if total:
        yield run, first


def stored_columns(names: Collection[str], config: SourceConfig) -> list[str]:
    """The columns of a file that hold what the options name, each once: "a" where that is "a/b"."""
    columns = *config.columns.values(), group_column(config.group_by)
    wanted = (c if c in names else c.partition("/")[0] for c in columns)
    return [column for column in dict.fromkeys(wanted) if column in names]


def read_batch(
    batch: Any, config: SourceConfig, folder: Path, file: str, first_row: int
) -> Iterator[Candidate | Rejected]:
    """The rows of a pyarrow.RecordBatch, whose first one is the file's row `first_row`."""
    columns = stored_columns(batch.schema.names, config)
    for i in range(batch.num_rows):
        row = first_row + i
        where = {"file": file, "row": row}
        try:
            cells = {column: _cell(batch, column, i) for column in columns}
            image = None
            if config.schema.has_image:
                image = read_image(cells, config, folder)
            texts = read_texts(cells, config)
            group = group_value(cells, config.group_by)
            yield Candidate(f"{file}:{row}", where, image, texts, group=group)
        except BadRecord as error:
            yield Rejected(where, str(error))


def _cell(batch: Any, column: str, row: int) -> Any:
    try:
        return batch.column(column)[row].as_py()
    except UnicodeDecodeError as error:
        raise BadRecord(f"column {column!r} is not UTF-8") from error
