"""A labelled set: labels in memory, images as files, by their place."""

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

HASHED_IMAGES = 16


class LazyImages(Sequence[bytes]):
    """Encoded images, each read when needed; a slice is a list."""

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
    """Hold one split of a labelled data set.

    name, split: as they were requested. version: "food101:2.0.0", or "folder". class_names: by
    label, spelt as the source spells them, in NFC; Russian for built-in sets. labels: int64[N].
    keys: N names of examples that stay the same whenever and wherever this version is read.
    images: N encoded files, read when needed. ignored: see `LabelledRows`.
    """

    name: str
    split: str
    version: str
    class_names: tuple[str, ...]
    labels: np.ndarray
    keys: tuple[str, ...]
    images: Sequence[bytes]
    ignored: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, places: Sequence[int]) -> LabelledSet:
        """Returns the examples at these places alone, in their order."""
        return dataclasses.replace(
            self,
            labels=self.labels[list(places)],
            keys=tuple(self.keys[place] for place in places),
            images=images_at(self.images, places),
        )

    def image(self, index: int) -> bytes:
        """Returns the index-th image's encoded file; one that cannot be read raises InputError."""
        return self.images[index]

    @functools.cached_property
    def source_hash(self) -> str:
        """Hashes the class names, all keys and labels, and 16 images spread evenly, by SHA-256."""
        digest = hashlib.sha256()
        names = [self.class_names[label] for label in self.labels]
        lines = [*self.class_names, *map("\t".join, zip(self.keys, names, strict=True))]
        digest.update(escape("\n".join(lines)).encode("utf-8"))
        hash_images(digest, self.images)
        return digest.hexdigest()


def hash_images(digest: Any, images: Sequence[bytes]) -> None:
    """Adds 16 of the images, spread evenly, or all of fewer; a mark for an unreadable one."""
    count = min(HASHED_IMAGES, len(images))
    for place in np.linspace(0, len(images) - 1, count).astype(int).tolist():
        try:
            digest.update(hashlib.sha256(images[place]).digest())
        except (InputError, OSError):  # measurements leave it out and say so
            digest.update(b"unreadable")


def images_at(images: Sequence[Any], places: Sequence[int]) -> LazyImages:
    """Returns those at these places alone."""
    return LazyImages(len(places), lambda i: images[places[i]])


def labelled_set(name: str, split: str, version: str, rows: LabelledRows) -> LabelledSet:
    """Makes the set of these rows, with class names and keys in NFC.

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
        LazyImages(len(labels), rows.read), tuple(rows.ignored),
    )  # fmt: skip


def join(parts: Sequence[LabelledSet]) -> LabelledSet:
    """Joins splits of one set, one after another."""
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
        LazyImages(int(ends[-1]), read),
        tuple(dict.fromkeys(line for part in parts for line in part.ignored)),
    )
