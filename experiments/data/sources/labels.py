"""Labels of images: which split a folder has, and the classes that its numbers and names mean.

A reader of a layout has `label_splits(folder)`, the splits of a folder that has the layout, and
`read_labels(folder, source, split)`, one of them. Labels are read at once, images when needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.text import decode_text, escape, normalize_name, read_lines

CLASS_NAMES = "classnames.txt"  # a name a line, in the order of the numbers, as CLIP_benchmark's
VALIDATION = ("validation", "valid", "val", "dev")


class MissingSplit(InputError):
    """A set is on disk and has no split of this name.

    split: the name. known: the splits that the set has.
    """

    def __init__(self, message: str, split: str, known: Collection[str]) -> None:
        super().__init__(message)
        self.split, self.known = split, tuple(known)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Say how to read the labels of a source.

    label: the feature of a TFDS set that holds the label.
    label_offset: that feature is a list, and the label is its length less this number.
    class_names: for sources that have numbers only.
    splits: the source's name of each of train, validation and test, where it differs.
    """

    label: str = "label"
    label_offset: int | None = None
    class_names: tuple[str, ...] = ()
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def source_split(self, split: str) -> str:
        """Returns the source's name of a split."""
        return self.splits.get(split, split)


@dataclasses.dataclass(frozen=True)
class LabelledRows:
    """A label and a key of each image of a split, and how to read the i-th image.

    ignored: a line for each rule by which a part of the source was left aside.
    """

    class_names: Sequence[str]
    labels: Sequence[int]
    keys: Sequence[str]
    read: Callable[[int], bytes]
    ignored: Sequence[str] = ()


def find_split(folder: Path, source: LabelSource, split: str, known: Collection[str]) -> str:
    """Returns what a folder with splits `known` calls a split. Names are compared in NFC.

    The source's own name comes first: ImageNet's labelled test images are called "val".
    """
    names: dict[str, str] = {}
    for name in known:
        other = names.setdefault(normalize_name(name), name)
        if other != name:
            raise InputError(f"{folder}: splits {other!a} and {name!a} have one name; rename one")
    wanted = source.source_split(normalize_name(split))
    for name in (wanted, split):
        for alias in VALIDATION if name in VALIDATION else (normalize_name(name),):
            if alias in names:
                return names[alias]
    found = escape(", ".join(sorted(known))) or "none"
    raise MissingSplit(f"{folder}: has no split {wanted!r}; found {found}", split, known)


def first_unique(*candidates: Sequence[str]) -> Sequence[str]:
    """Returns the first of these lists of keys that names no two examples the same, or the last."""
    return next((keys for keys in candidates if len(set(keys)) == len(keys)), candidates[-1])


def normalize_class_names(names: Sequence[str], place: str) -> tuple[str, ...]:
    """Puts names of numbered classes in NFC. Two that differ in their form alone raise InputError.

    Two that are the same stay, for published sets have such (ImageNet's "maillot"): whoever looks
    a class up by its name refuses them.
    """
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        earlier = numbers.setdefault(normalize_name(name), number)
        if names[earlier] != name:
            raise InputError(
                f"{place}: classes {earlier} and {number} are {names[earlier]!a} and {name!a}, one "
                "name in two normal forms; keep one of them"
            )
    return tuple(normalize_name(name) for name in names)


def known_class_names(folder: Path, source: LabelSource) -> Sequence[str]:
    """Returns the names of numbered classes, from the folder or the source; () without either.

    A line's place is its class's number: an empty line between others raises InputError.
    """
    file = folder / CLASS_NAMES
    if not file.is_file():
        return source.class_names
    lines = [line.strip() for line in read_lines(file)]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise InputError(
            f"{escape(str(file))}: line {lines.index('') + 1} is empty; expected a name a line, "
            "whose place is the class's number"
        )
    return normalize_class_names(lines, escape(str(file)))


def resolve_labels(
    values: Mapping[str, Sequence[Any]], split: str, names: Sequence[str], place: Path
) -> tuple[list[str], list[int]]:
    """Returns class names in NFC, and the labels of a split, from the values of all splits.

    names: of the classes, if they are known: a number is one's place among them, and a text its
    name or its place. Otherwise the values themselves are the names, numbers in their order.
    A value that is missing raises InputError.
    """
    texts = {
        part: [_label_text(value, f"{place}: split {part!r}, label {row}")
               for row, value in enumerate(listed)]
        for part, listed in values.items()
    }  # fmt: skip
    numbered: dict[str, int] = {}
    if names:
        names = normalize_class_names(names, str(place))
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


def _label_text(value: Any, where: str) -> str:
    """Returns a label as text, in NFC. where: the place that errors name."""
    if isinstance(value, bytes):
        value = decode_text(value, where)
    missing = value is None or value != value  # NaN, Arrow's and NumPy's for no value
    text = "" if missing else normalize_name(str(value).strip())
    if not text:
        raise InputError(f"{where}: is {value!r}; expected a name or a number")
    return text
