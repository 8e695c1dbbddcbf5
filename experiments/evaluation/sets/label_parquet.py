"""Parquet files as the Hugging Face hub stores a labelled set: data/test-00000-of-00001.parquet."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.system_folders import is_system
from clip_jax.text import parse_json
from experiments.data.sources.arrow_package import import_arrow
from experiments.data.sources.columns import image_bytes
from experiments.data.sources.forms import IMAGE_COLUMNS
from experiments.data.sources.parquet import splits_by_name
from experiments.data.sources.records import BadRecord
from experiments.evaluation.sets.labelled import Rows
from experiments.evaluation.sets.labels import LABEL_COLUMNS, find_column, known_names, resolve
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.split_names import find_split

Group = tuple[Path, int]  # a row group of a file


def splits(folder: Path) -> list[str]:
    """As the names of the files tell them."""
    return list(_files(folder))


def read(folder: Path, record: SetRecord, split: str) -> Rows:
    """Labels at once; images by row groups, the last two of which stay in memory."""
    files = _files(folder)
    name = find_split(folder, record, split, files)
    with _reading(files[name][0]) as opened:
        image, label = _columns(opened.schema_arrow.names, files[name][0])
        names = _class_names(opened.schema_arrow, label) or known_names(folder, record)
    groups = {split: _groups(files[split]) for split in ([name] if names else files)}
    values = {
        split: [value for group in listed for value in _column(group, label).to_pylist()]
        for split, listed in groups.items()
    }
    names, labels = resolve(values, name, names, folder)
    ends = np.cumsum([_rows(group) for group in groups[name]])

    @functools.lru_cache(maxsize=2)
    def pictures(number: int) -> Any:
        return _column(groups[name][number], image)

    def read_image(index: int) -> bytes:
        number = int(np.searchsorted(ends, index, side="right"))
        column = pictures(number)
        try:
            return image_bytes(column[index - int(ends[number])].as_py(), folder)
        except BadRecord as error:
            raise InputError(f"{groups[name][number][0]}: example {index}: {error}") from error

    return Rows(names, labels, [f"{name}[{row}]" for row in range(len(labels))], read_image)


def _files(folder: Path) -> dict[str, list[Path]]:
    """By split, in the folder or in one below it, such as "data"; no hidden or system ones."""
    listed = sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])
    files = splits_by_name([
        file for file in listed if not any(map(is_system, file.relative_to(folder).parts))
    ])  # fmt: skip
    for split, listed in files.items():
        places = sorted({str(file.parent) for file in listed})
        if len(places) > 1:
            raise InputError(
                f"{folder}: has split {split!r} in several folders; keep one of {', '.join(places)}"
            )
    return files


def _columns(names: list[str], file: Path) -> tuple[str, str]:
    """Of images and of labels."""
    found = []
    for usual in (IMAGE_COLUMNS, LABEL_COLUMNS):
        found.append(find_column(names, usual))
        if found[-1] is None:
            raise InputError(
                f"{file}: columns are {', '.join(names)}; expected one of {', '.join(usual)}"
            )
    return found[0], found[1]


def _groups(files: list[Path]) -> list[Group]:
    found = []
    for file in files:
        with _reading(file) as opened:
            found += [(file, group) for group in range(opened.num_row_groups)]
    return found


def _rows(group: Group) -> int:
    with _reading(group[0]) as opened:
        return opened.metadata.row_group(group[1]).num_rows


def _column(group: Group, name: str) -> Any:
    with _reading(group[0]) as opened:
        return opened.read_row_group(group[1], [name]).column(0)


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
        about = parse_json((schema.metadata or {})[b"huggingface"], "the schema's metadata")
        return list(about["info"]["features"][label]["names"])
    except (KeyError, TypeError, InputError):
        return []
