"""Groups of records that belong into one split: views of one object, frames of one video."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from clip_jax.errors import InputError
from clip_jax.text import escape, normalize_name

FOLDER, PREFIX = "folder", "prefix"
BY_KEY = (FOLDER, PREFIX)
COLUMN = "column:"  # before the name of a column that is called "folder" or "prefix"


def group_column(group_by: str) -> str:
    """Returns the column that `--group-by` names, "" where groups follow from keys."""
    return "" if group_by in BY_KEY else group_by.removeprefix(COLUMN)


def check_group_column(names: Collection[str], group_by: str, place: Any) -> None:
    """Raises InputError where `--group-by` names a column that a source with columns lacks.

    `a/b` is the field `b` of the column `a`.
    """
    column = group_column(group_by)
    if column and column not in names and column.partition("/")[0] not in names:
        listed = ", ".join(sorted(map(str, names))) or "none"
        raise InputError(
            escape(
                f"{place}: has no column {column!r}; expected --group-by to be "
                f"{', '.join(BY_KEY)} or a column; columns are {listed}"
            )
        )


def group_value(row: Mapping[str, Any], group_by: str) -> Any:
    """Returns a row's value in the column that `--group-by` names, None without it."""
    column = group_column(group_by)
    if not column or column in row:
        return row.get(column)
    value: Any = row
    for part in column.split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def find_group(key: str, value: Any, group_by: str) -> str | None:
    """Returns the group of a record, None where `group_by` is "" or the value is missing.

    folder: the folder of the image's name. prefix: the name up to the last "_" or "-" of its file
    name, all of it where it has none: "coins/12_back.jpg" is in the group "coins/12". The name is
    `value` where the key is another, such as a question's. Values of a column are compared as text
    without spaces around it, in NFC.
    """
    path = PurePosixPath(key if value is None else str(value))
    if group_by == FOLDER:
        return str(path.parent)
    if group_by == PREFIX:
        stem = path.name.split(".")[0] or path.name
        return str(path.parent / (re.sub(r"[_-][^_-]*$", "", stem) or stem))
    if not group_by or value is None:
        return None
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return normalize_name(text.strip()) or None
