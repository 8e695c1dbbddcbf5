"""Several splits as one, of which a stream samples by weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clip_jax.errors import InputError

if TYPE_CHECKING:
    from experiments.data.source import Split


class Mixture:
    """Rows of the first split, then of the next; what one of them lacks none of them shows.

    Iterating gives every row once: weights are for `batches` alone.
    """

    def __init__(self, splits: Sequence[Split], weights: Sequence[float]) -> None:
        """splits: where one has captions, images, questions or contexts all have."""
        self._splits = list(splits)
        self._ends = np.cumsum([len(split) for split in splits])
        captioned = self._agree("captions", {"caption", "captions"})
        self.has_images = self._agree("images", {"image"})
        self._agree("questions", {"question"})
        self._agree("contexts", {"context"})
        first, *others = splits
        self._weights = list(weights)
        self.name = first.name
        self.features = {
            name: feature
            for name, feature in first.features.items()
            if name == "image" or all(_has(split, name, feature) for split in others)
        }
        self._shown = {*self.features, "captions"} if captioned else set(self.features)
        self.metadata = {
            key: value
            for key, value in first.metadata.items()
            if all(split.metadata.get(key) == value for split in others)
        }

    def __str__(self) -> str:
        return " and ".join(map(str, self._splits))

    @property
    def parts(self) -> list[tuple[range, float]]:
        """Returns the numbers of each split's rows, and its weight."""
        ends = self._ends.tolist()
        rows = [range(start, end) for start, end in zip([0, *ends], ends, strict=False)]
        return list(zip(rows, self._weights, strict=True))

    @property
    def splits(self) -> list[Split]:
        return self._splits

    @property
    def backgrounds(self) -> set[str]:
        """Returns the backgrounds that the sets state; see `Split`."""
        return set().union(*(split.backgrounds for split in self._splits))

    @property
    def sources(self) -> list[str]:
        """Returns the names of what `locate` counts."""
        return [name for split in self._splits for name in split.sources]

    def locate(self, index: int) -> tuple[int, int]:
        """Returns which of `sources` a row is of, and its number there."""
        source = int(np.searchsorted(self._ends, index, side="right"))
        return source, index - int(self._ends[source]) + len(self._splits[source])

    def require_images(self) -> None:
        """Raises InputError where a set has none; see `Split`."""
        for split in self._splits:
            split.require_images()

    def require_captions(self) -> None:
        for split in self._splits:
            split.require_captions()

    def require_questions(self) -> None:
        for split in self._splits:
            split.require_questions()

    def require_texts(self) -> None:
        for split in self._splits:
            split.require_texts()

    def _agree(self, noun: str, any_of: set[str]) -> bool:
        """Returns whether the sets have one of these features; InputError where only some have."""
        have = [bool(any_of & set(split.features)) for split in self._splits]
        if any(have) and not all(have):
            raise InputError(f"{self._splits[have.index(False)]}: has no {noun}; the others have")
        return all(have)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # which also ends an iteration
        source, number = self.locate(index)
        row = self._splits[source][number]
        return {key: value for key, value in row.items() if key in self._shown}


def _has(split: Split, name: str, feature: Any) -> bool:
    """Returns whether values of the feature mean the same: labels need the same names too."""
    if name not in split.features:
        return False
    other = split.features[name]
    names = getattr(feature, "names", None), getattr(other, "names", None)
    return feature.to_json() == other.to_json() and names[0] == names[1]
