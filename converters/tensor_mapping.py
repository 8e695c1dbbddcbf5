"""The mapping between a parameter and foreign tensors: a pattern with its sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import einops
import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorMapping:
    """Map sources to one parameter and back, with every shape known."""

    sources: tuple[str, ...]
    target: str
    source_shape: Shape  # of each source
    target_shape: Shape
    pattern: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)

    def to_jax(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Map source arrays to the parameter; a view unless there are several sources."""
        source = arrays[0] if len(arrays) == 1 else list(arrays)
        return einops.rearrange(source, self.pattern, **self.sizes) if self.pattern else arrays[0]

    def to_torch(self, array: np.ndarray) -> tuple[np.ndarray, ...]:
        """Map the parameter to source arrays; the inverse of `to_jax`."""
        if not self.pattern:
            return (array,)
        left, right = self.pattern.split(" -> ")
        array = einops.rearrange(array, f"{right} -> {left}", **self.sizes)
        return (array,) if len(self.sources) == 1 else tuple(array)


@dataclass(frozen=True)
class LazyArray:
    """Defer an array until it is written."""

    shape: Shape
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.make())


def make_mapping(
    sources: tuple[str, ...], pattern: str, target: str, target_shape: Shape
) -> TensorMapping:
    """Return the mapping of a pattern of `rules.Rule`; the target's shape gives the others.

    ValueError for a pattern that does not fit the shape or the number of sources.
    """
    if not pattern:
        return TensorMapping(sources, target, target_shape, target_shape)
    left, right = (_axes(side) for side in pattern.split(" -> "))
    letters = [letter for axis in right for letter in axis]
    if len(letters) != len(target_shape) or any(len(axis) != 1 for axis in right):
        raise ValueError(f"{target}: {pattern!r} does not name each axis of {target_shape}")
    sizes = dict(zip(letters, target_shape, strict=True))
    source_shape = tuple(math.prod(sizes[letter] for letter in axis) for axis in left)
    if len(sources) > 1:
        if source_shape[0] != len(sources):
            raise ValueError(f"{target}: {len(sources)} sources, but {pattern!r}")
        source_shape = source_shape[1:]
    return TensorMapping(sources, target, source_shape, target_shape, pattern, sizes)


def _axes(side: str) -> list[list[str]]:
    """Parse '(h k) d' to [['h', 'k'], ['d']]."""
    return [token.strip("()").split() for token in re.findall(r"\([^)]*\)|\S+", side)]
