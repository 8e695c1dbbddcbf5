"""From what a source writes for a class, its number or its name, to classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from experiments.evaluation.sets.record import SetRecord

LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "category", "cls", "fine_label", "target",
)  # fmt: skip
CLASS_NAMES = "classnames.txt"  # a name a line, in the order of the numbers, as CLIP_benchmark's


def find_column(names: Collection[str], usual: Sequence[str]) -> str | None:
    """The first usual name that is there."""
    return next((name for name in usual if name in names), None)


def known_names(folder: Path, record: SetRecord) -> list[str]:
    """The names of numbered classes, from the folder or the record; [] where neither has any."""
    file = folder / CLASS_NAMES
    if not file.is_file():
        return list(record.class_names)
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise InputError(f"{file}: cannot be read as text ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def resolve(
    values: Mapping[str, Sequence[Any]], split: str, names: Sequence[str], place: Path
) -> tuple[list[str], list[int]]:
    """Class names, and the labels of a split, from the values of all splits.

    names: of the classes, if they are known: a number is one's place among them, and a text its
    name or its place. Otherwise the values themselves are the names, numbers in their order.
    """
    numbered: dict[str, int] = {}
    if names:
        numbered = {str(label): label for label in range(len(names))}
    else:
        texts = {_text(value) for listed in values.values() for value in listed}
        numbers = all(text.isdecimal() for text in texts)
        names = sorted(texts, key=(lambda text: (int(text), text)) if numbers else None)
    named = {name: label for label, name in enumerate(names)}
    labels = []
    for value in values[split]:
        tables = (numbered,) if numbered and isinstance(value, int) else (numbered, named)
        found = {table[_text(value)] for table in tables if _text(value) in table}
        if len(found) != 1:
            problem = "which is a name and another's number" if found else "which is no class"
            raise InputError(
                f"{place}: split {split!r} has label {value!r}, {problem}; expected one of "
                f"{len(names)} names or 0 to {len(names) - 1}"
            )
        labels += found
    return list(names), labels


def _text(value: Any) -> str:
    return str(value).strip()
