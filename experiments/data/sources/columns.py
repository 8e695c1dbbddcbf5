"""Finds the columns of images and texts, and reads their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.text import escape
from experiments.data.sources.files import read_inside
from experiments.data.sources.groups import check_group_column
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.records import BadRecord
from experiments.data.sources.schema import COLUMNS, Column

Row = Mapping[str, Any]


def choose_columns(names: Collection[str], config: SourceConfig, place: Any) -> SourceConfig:
    """Returns `config` with a column for each feature; InputError where one is missing."""
    check_group_column(names, config.group_by, place)
    chosen = {
        column.field: _choose(names, column, config.columns[feature], place)
        for feature, column in config.schema.columns.items()
    }
    return dataclasses.replace(config, **chosen)


def find_column(names: Collection[str], column: Column, wanted: str = "") -> str | None:
    """Returns `wanted`, "a" or "a/b" in "a", or else the first usual name that is there."""
    if wanted:
        return wanted if wanted in names or wanted.partition("/")[0] in names else None
    return next((name for name in column.default_names if name in names), None)


def _choose(names: Collection[str], column: Column, wanted: str, place: Any) -> str:
    chosen = find_column(names, column, wanted)
    if chosen is not None:
        return chosen
    found = f"none of the columns is called {', '.join(column.default_names)}"
    if wanted:
        found = f"has no column {wanted!r}"
    listed = ", ".join(sorted(map(str, names))) or "none"
    raise InputError(
        escape(f"{place}: {found}; name one with {column.option}; columns are {listed}")
    )


def get_value(row: Row, column: Column, name: str) -> Any:
    """Returns row["a"]["b"] for "a/b" unless there is a column of that very name.

    name: "" takes the first usual one. A record without the column raises BadRecord.
    """
    if not name:
        name = find_column(row, column) or ""
        if not name:
            raise BadRecord(f"no column is called {', '.join(column.default_names)}")
    value: Any = row
    for part in [name] if name in row else name.split("/"):
        if not isinstance(value, Mapping) or part not in value:
            raise BadRecord(f"column {name!r} is missing")
        value = value[part]
    return value


def read_texts(row: Row, config: SourceConfig) -> dict[str, Any]:
    """Returns the texts of a row by feature, unchecked; a list of the repeated one's."""
    found = {
        name: get_value(row, column, config.columns[name])
        for name, column in config.schema.columns.items()
        if name != "image"
    }
    several = found[config.schema.repeated_feature]
    if isinstance(several, Mapping) and "text" in several:
        several = several["text"]  # SQuAD's layout: {"text": [...], "answer_start": [...]}
    if isinstance(several, np.ndarray):
        several = several.tolist()
    several = list(several) if isinstance(several, list | tuple) else [several]
    return found | {config.schema.repeated_feature: several}


def read_image(row: Row, config: SourceConfig, folder: Path) -> bytes:
    """Returns the encoded image of a row."""
    return image_bytes(get_value(row, COLUMNS["image"], config.image_column), folder)


def image_bytes(value: Any, folder: Path) -> bytes:
    """Returns the encoded image of a cell: bytes, {"bytes", "path"}, or a path inside `folder`."""
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return image_bytes(value["bytes"], folder)
        value = value.get("path")
    if value is None or value == "":
        raise BadRecord("image is missing")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise BadRecord(f"image is neither bytes nor a path: it is of type {type(value).__name__}")
    return read_inside(folder, value)
