"""From what a source writes for a class, its number or its name, to classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.text import decode_text, escape, normalize_name
from experiments.evaluation.sets.labelled import normal_names
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.text_lines import read_lines

LABEL_COLUMNS = (
    "label", "labels", "class", "class_name", "category", "cls", "fine_label", "target",
)  # fmt: skip
CLASS_NAMES = "classnames.txt"  # a name a line, in the order of the numbers, as CLIP_benchmark's


def find_column(names: Collection[str], usual: Sequence[str]) -> str | None:
    """The first usual name that is there."""
    return next((name for name in usual if name in names), None)


def known_names(folder: Path, record: SetRecord) -> list[str]:
    """The names of numbered classes, from the folder or the record; [] where neither has any.

    A line's place is its class's number: an empty line between others raises InputError.
    """
    file = folder / CLASS_NAMES
    if not file.is_file():
        return list(record.class_names)
    lines = [line.strip() for line in read_lines(file)]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise InputError(
            f"{escape(str(file))}: line {lines.index('') + 1} is empty; expected a name a line, "
            "whose place is the class's number"
        )
    return list(normal_names(lines, escape(str(file))))


def resolve(
    values: Mapping[str, Sequence[Any]], split: str, names: Sequence[str], place: Path
) -> tuple[list[str], list[int]]:
    """Class names in NFC, and the labels of a split, from the values of all splits.

    names: of the classes, if they are known: a number is one's place among them, and a text its
    name or its place. Otherwise the values themselves are the names, numbers in their order.
    A value that is missing raises InputError.
    """
    texts = {
        part: [_text(value, f"{place}: split {part!r}, label {row}")
               for row, value in enumerate(listed)]
        for part, listed in values.items()
    }  # fmt: skip
    numbered: dict[str, int] = {}
    if names:
        names = normal_names(names, str(place))
        numbered = {str(label): label for label in range(len(names))}
    else:
        every = {text for listed in texts.values() for text in listed}
        numbers = all(text.isdecimal() for text in every)
        names = sorted(every, key=(lambda text: (int(text), text)) if numbers else None)
    named: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        named.setdefault(name, []).append(label)
    labels = []
    for value, text in zip(values[split], texts[split], strict=True):
        found = {numbered[text]} if text in numbered else set()
        if not (numbered and isinstance(value, int)):
            found |= set(named.get(text, ()))
        if len(found) != 1:
            problem = "which is no class"
            if found:
                problem = (
                    "which is the name of several"
                    if len(named.get(text, ())) > 1
                    else "which is a name and another's number"
                )
            raise InputError(
                f"{place}: split {split!r} has label {value!r}, {problem}; expected one of "
                f"{len(names)} names or 0 to {len(names) - 1}"
            )
        labels += found
    return list(names), labels


def _text(value: Any, where: str) -> str:
    """A label as text, in NFC. where: the place that errors name."""
    if isinstance(value, bytes):
        value = decode_text(value, where)
    missing = value is None or value != value  # NaN, Arrow's and NumPy's for no value
    text = "" if missing else normalize_name(str(value).strip())
    if not text:
        raise InputError(f"{where}: is {value!r}; expected a name or a number")
    return text
