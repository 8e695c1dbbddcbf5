"""Parquet files as the Hugging Face hub stores a labelled set: data/test-00000-of-00001.parquet."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from experiments.data.sources.arrow_package import import_arrow
from experiments.data.sources.columns import IMAGE_COLUMNS, image_bytes
from experiments.data.sources.parquet import choose_files, splits_by_name
from experiments.data.sources.plan import Options
from experiments.data.sources.records import BadRecord
from experiments.evaluation.sets.labelled import Rows
from experiments.evaluation.sets.labels import LABEL_COLUMNS, find_column, known_names, resolve
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.split_names import find_split


def splits(folder: Path) -> list[str]:
    """As the names of the files tell them."""
    return list(splits_by_name(sorted(folder.rglob("*.parquet"))))


def read(folder: Path, record: SetRecord, split: str) -> Rows:
    """Labels at once; pictures by row groups, the last two of which stay in memory."""
    name = find_split(folder, record, split, splits(folder))
    _, files = choose_files(Options(str(folder), from_split=name))
    with _reading(files[0]) as opened:
        columns = opened.schema_arrow.names
        image, label = find_column(columns, IMAGE_COLUMNS), find_column(columns, LABEL_COLUMNS)
        if not image or not label:
            usual = f"{', '.join(IMAGE_COLUMNS)} and {', '.join(LABEL_COLUMNS)}"
            raise InputError(
                f"{files[0]}: columns are {', '.join(columns)}; expected one of each of {usual}"
            )
        names = _class_names(opened.schema_arrow, label) or known_names(folder, record)
    groups, values = [], []
    for file in files:
        with _reading(file) as opened:
            for group in range(opened.num_row_groups):
                column = opened.read_row_group(group, [label]).column(0).to_pylist()
                groups.append((file, group))
                values.append(column)
    ends = np.cumsum([len(column) for column in values])

    @functools.lru_cache(maxsize=2)
    def pictures(number: int) -> Any:
        file, group = groups[number]
        with _reading(file) as opened:
            return opened.read_row_group(group, [image]).column(0)

    def read_image(index: int) -> bytes:
        number = int(np.searchsorted(ends, index, side="right"))
        row = index - int(ends[number]) + len(values[number])
        try:
            return image_bytes(pictures(number)[row].as_py(), folder)
        except BadRecord as error:
            raise InputError(f"{groups[number][0]}: example {index}: {error}") from error

    flat = [value for column in values for value in column]
    names, labels = resolve({split: flat}, split, names, folder)
    return Rows(names, labels, [f"{name}[{row}]" for row in range(len(flat))], read_image)


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[Any]:
    """A ParquetFile; what is wrong with the file raises InputError."""
    try:
        with import_arrow("pyarrow.parquet").ParquetFile(file) as opened:
            yield opened
    except (import_arrow("pyarrow.lib").ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read as Parquet ({reason})") from error


def _class_names(schema: Any, label: str) -> list[str]:
    """Those of a ClassLabel, from what the library `datasets` writes beside the columns."""
    try:
        about = json.loads((schema.metadata or {})[b"huggingface"])
        return list(about["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return []
