"""Which column is the picture and which the caption, and what their values may be."""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from experiments.data.sources.records import LARGEST_FILE, BadRecord

# By preference, where none is named.
IMAGE_COLUMNS = (
    "image", "image_path", "path", "file_name", "filename", "filepath", "file", "img", "picture",
)  # fmt: skip
CAPTION_COLUMNS = ("caption", "captions", "text", "texts", "title", "description", "label_text")


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
    raise InputError(f"{place}: {found}; name one with {option}; columns are {listed}")


def look_up(row: Mapping[str, Any], column: str, usual: tuple[str, ...] = ()) -> Any:
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


def caption_list(value: Any) -> list[Any]:
    """One caption or several as a list."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else [value]


def image_bytes(value: Any, folder: Path) -> bytes:
    """The encoded picture of a cell: bytes, {"bytes", "path"}, or a path inside `folder`."""
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


def read_inside(folder: Path, name: str) -> bytes:
    """A file by a path that must not leave the folder, links followed."""
    try:
        file = (folder / name).resolve()
        if not file.is_relative_to(folder.resolve()):
            raise BadRecord(f"path leaves the folder: {name!r}")
        about = file.stat()
        if not stat.S_ISREG(about.st_mode):
            raise BadRecord(f"picture is no file: {name!r}")
        if about.st_size > LARGEST_FILE:
            raise BadRecord(f"picture is too large: {about.st_size} bytes")
        return file.read_bytes()
    except FileNotFoundError as error:
        raise BadRecord(f"picture is missing: {name!r}") from error
    except (OSError, RuntimeError, ValueError) as error:  # loops of links, names with zeros
        raise BadRecord(f"picture cannot be read: {' '.join(str(error).split())}") from error
