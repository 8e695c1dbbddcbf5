"""What every reader gives: labels in memory, images as files, by their place."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.text import escape, normalize_name, warn_of_invisible
from experiments.data.sources.labels import LabelledRows, first_unique, normalize_class_names

PICTURES_HASHED = 16


class Pictures(Sequence[bytes]):
    """Encoded images, each read when it is asked for; a slice is a list."""

    def __init__(self, count: int, read: Callable[[int], bytes]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._read(i) for i in range(self._count)[index]]
        return self._read(range(self._count)[operator.index(index)])


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledSet:
    """One split of a labelled data set.

    name, split: as they were asked for. version: "food101:2.0.0", or "folder". class_names: by
    label, spelt as the source spells them, in NFC; Russian for built-in sets. labels: int64[N].
    keys: N names of examples that stay the same whenever and wherever this version is read.
    pictures: N encoded files, read when they are asked for. ignored: see `LabelledRows`.
    """

    name: str
    split: str
    version: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    keys: tuple[str, ...]
    pictures: Sequence[bytes]
    ignored: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: Sequence[int]) -> LabelledSet:
        """The examples at these places alone, in their order."""
        return dataclasses.replace(
            self,
            labels=self.labels[list(places)],
            keys=tuple(self.keys[place] for place in places),
            pictures=pictures_at(self.pictures, places),
        )

    def image(self, index: int) -> bytes:
        """The encoded file of the index-th image; one that cannot be read raises InputError."""
        return self.pictures[index]

    @functools.cached_property
    def source_hash(self) -> str:
        """SHA-256 of the class names, of all keys and labels, and of 16 images spread evenly."""
        digest = hashlib.sha256()
        names = [self.class_names[label] for label in self.labels]
        lines = [*self.class_names, *map("\t".join, zip(self.keys, names, strict=True))]
        digest.update(escape("\n".join(lines)).encode("utf-8"))
        hash_pictures(digest, self.pictures)
        return digest.hexdigest()


def hash_pictures(digest: Any, pictures: Sequence[bytes]) -> None:
    """Adds 16 of the pictures, spread evenly, or all of fewer; a mark for an unreadable one."""
    count = min(PICTURES_HASHED, len(pictures))
    for place in np.linspace(0, len(pictures) - 1, count).astype(int).tolist():
        try:
            digest.update(hashlib.sha256(pictures[place]).digest())
        except (InputError, OSError):  # measurements leave it out and say so
            digest.update(b"unreadable")


def pictures_at(pictures: Sequence[Any], places: Sequence[int]) -> Pictures:
    """Those at these places alone."""
    return Pictures(len(places), lambda i: pictures[places[i]])


def labelled_set(name: str, split: str, version: str, rows: LabelledRows) -> LabelledSet:
    """The set of these rows, with class names and keys in NFC.

    Labels that are no class, one class in two normal forms, or a key given twice raise InputError.
    Invisible characters in class names are warned of.
    """
    labels = np.asarray(rows.labels, dtype=np.int64)
    count = len(rows.class_names)
    if not len(labels):
        raise InputError(f"{name}: split {split!r} holds no examples")
    if labels.min() < 0 or labels.max() >= count:
        wrong = labels[(labels < 0) | (labels >= count)][0]
        raise InputError(f"{name}: split {split!r} has label {wrong}; expected 0 to {count - 1}")
    if len(set(rows.keys)) != len(rows.keys):
        raise InputError(f"{name}: split {split!r} has examples of the same key")
    class_names = normalize_class_names(rows.class_names, name)
    warn_of_invisible(class_names, name)
    # Two files whose names differ in their normal form alone keep their own names.
    keys = first_unique([normalize_name(key) for key in rows.keys], rows.keys)
    return LabelledSet(
        name, split, version, class_names, labels, tuple(keys),
        Pictures(len(labels), rows.read), tuple(rows.ignored),
    )  # fmt: skip


def join(parts: Sequence[LabelledSet]) -> LabelledSet:
    """Splits of one set, one after another."""
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.class_names != first.class_names:
            raise InputError(
                f"{first.name}: splits {first.split!r} and {part.split!r} have other classes"
            )
    ends = np.cumsum([len(part) for part in parts])

    def read(index: int) -> bytes:
        which = int(np.searchsorted(ends, index, side="right"))
        return parts[which].image(index - int(ends[which]) + len(parts[which]))

    return LabelledSet(
        first.name,
        "+".join(part.split for part in parts),
        first.version,
        first.class_names,
        np.concatenate([part.labels for part in parts]),
        tuple(f"{part.split}/{key}" for part in parts for key in part.keys),
        Pictures(int(ends[-1]), read),
        tuple(dict.fromkeys(line for part in parts for line in part.ignored)),
    )
