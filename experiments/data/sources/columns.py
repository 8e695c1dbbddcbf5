"""Which column is the image and which a text, and what their values may be."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.text import escape
from experiments.data.sources.inside import read_inside
from experiments.data.sources.plan import Options
from experiments.data.sources.records import BadRecord

Row = Mapping[str, Any]


def choose_columns(names: Collection[str], options: Options, place: Any) -> Options:
    """The options with a column for each feature of their form; InputError where one is missing."""
    chosen = {
        column.field: choose_column(
            names, options.columns[feature], column.usual, column.option, place
        )
        for feature, column in options.what.columns.items()
    }
    return dataclasses.replace(options, **chosen)


def choose_column(
    names: Collection[str], wanted: str, usual: tuple[str, ...], option: str, place: Any
) -> str:
    """`wanted`, or else the first usual name among `names`; InputError where there is none."""
    if wanted:
        if wanted in names or wanted.partition("/")[0] in names:
            return wanted
        found = f"has no column {wanted!r}"
    else:
        for name in usual:
            if name in names:
                return name
        found = f"none of the columns is called {', '.join(usual)}"
    listed = ", ".join(sorted(map(str, names))) or "none"
    raise InputError(escape(f"{place}: {found}; name one with {option}; columns are {listed}"))


def look_up(row: Row, column: str, usual: tuple[str, ...] = ()) -> Any:
    """row["a"]["b"] for "a/b" unless there is a column of that very name; "": the first usual one.

    A record without the column raises BadRecord.
    """
    if not column:
        column = next((name for name in usual if name in row), "")
        if not column:
            raise BadRecord(f"no column is called {', '.join(usual)}")
    value: Any = row
    for part in [column] if column in row else column.split("/"):
        if not isinstance(value, Mapping) or part not in value:
            raise BadRecord(f"column {column!r} is missing")
        value = value[part]
    return value


def read_texts(row: Row, options: Options) -> dict[str, Any]:
    """The texts of a row by feature, not looked at yet; a list of those of which it has several."""
    found = {
        name: look_up(row, options.columns[name], column.usual)
        for name, column in options.what.columns.items()
        if name != "image"
    }
    several = found[options.what.several]
    if isinstance(several, Mapping) and "text" in several:
        several = several["text"]  # SQuAD's form: {"text": [...], "answer_start": [...]}
    if isinstance(several, np.ndarray):
        several = several.tolist()
    several = list(several) if isinstance(several, list | tuple) else [several]
    return found | {options.what.several: several}


def image_bytes(value: Any, folder: Path) -> bytes:
    """The encoded image of a cell: bytes, {"bytes", "path"}, or a path inside `folder`."""
    if isinstance(value, Mapping):
        if value.get("bytes") is not None:
            return image_bytes(value["bytes"], folder)
        value = value.get("path")
    if value is None or value == "":
        raise BadRecord("picture is missing")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise BadRecord(f"picture is no picture: it is of type {type(value).__name__}")
    return read_inside(folder, value)
