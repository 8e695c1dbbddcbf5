"""Slots of the key-value cache: which keys of a sampled segment a layer keeps.

# N tokens of the segment, S slots that are kept, W of them that a query attends to

A layer's mask makes most of the keys before a token useless. With the row mask of an image two
tokens wide (`masks.py`), the token at position p attends to p - 2, p - 1 and itself, so a ring of
three slots is enough; with the column mask it attends to one column, whose slots are contiguous:

    position    0 1 2 3 4 5        position    0 1 2 3 4 5
    row: slot   0 1 2 0 1 2        column      0 3 1 4 2 5

The mask alone decides: slots that hold another token are masked, and no token is overwritten
before the last query that may attend to it.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import mask


class TokenWindow(NamedTuple):
    """The window of one token, which all layers with a mask share.

    slot: int32[], that the token is written to.
    start: int32[], first of the W slots that it attends to.
    mask: bool[W], which of these it attends to.
    """

    slot: jax.Array
    start: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class CacheWindow:
    """Slots that a layer stores keys and values in, and those that a query attends to.

    num_slots: S.
    slot_of: int32[N], the slot that the token at each position is written to.
    start_of: int32[N], the first of the W slots that this token attends to.
    position_of: int32[N, W], the position of the token that each of these slots holds once this
        one is written; -1: none yet.
    mask: bool[N, W], which of these slots the token attends to, its own included.
    """

    num_slots: int
    slot_of: np.ndarray
    start_of: np.ndarray
    position_of: np.ndarray
    mask: np.ndarray

    @property
    def size(self) -> int:
        """Number of slots that a query reads: W."""
        return self.mask.shape[1]

    def at(self, position: jax.Array, first_sampled: jax.Array) -> TokenWindow:
        """Returns the window of the token at a position, int32[] each, 0 or above.

        first_sampled: the first position that the prompt's cache does not hold.
        """
        attended = np.where(self.mask, self.position_of, -1).astype(np.int32)
        slot, start, row = (
            lax.dynamic_index_in_dim(
                jnp.asarray(table), position, keepdims=False, allow_negative_indices=False
            )
            for table in (self.slot_of, self.start_of, attended)
        )
        return TokenWindow(slot, start, row >= first_sampled)


@lru_cache(maxsize=64)
def cache_window(
    config: RudolphConfig, mask_type: str, segment: str, windowed: bool = True
) -> CacheWindow:
    """Returns the smallest window that a mask allows, or with `windowed` off the whole segment.

    segment: "left", "image" or "right". Text attends to all text before it, so it keeps all.
    """
    layout = Layout(config)
    target: slice = getattr(layout, segment)
    N, begin = target.stop - target.start, target.start + layout.num_prefix_tokens
    allowed = mask(config, mask_type)[begin : target.stop, begin : target.stop]
    # Behind a prefix the last token lies past the image's end: nothing is predicted after it.
    allowed = np.pad(allowed, (0, layout.num_prefix_tokens))
    positions = np.arange(N)
    query, key = np.nonzero(allowed)
    d = config.image_tokens_per_side
    if windowed and segment == "image" and mask_type == "column":
        row, column = np.divmod(positions + layout.num_prefix_tokens, d)
        rows = int(row.max()) + 1
        slot_of, start_of, num_slots, size = column * rows + row, column * rows, rows * d, rows
    else:
        reach = int((query - key).max()) + 1
        num_slots = size = reach if windowed else N
        slot_of, start_of = positions % num_slots, np.zeros_like(positions)
    contents = _slot_contents(slot_of, num_slots)
    position_of = np.take_along_axis(contents, start_of[:, None] + np.arange(size), axis=1)
    window_mask = np.take_along_axis(allowed, np.maximum(position_of, 0), axis=1)
    window_mask &= position_of >= 0
    if (window_mask.sum(axis=1) != allowed.sum(axis=1)).any():
        raise AssertionError(
            f"a {mask_type} window of {size} of {num_slots} slots loses allowed keys"
        )
    return CacheWindow(
        num_slots, slot_of.astype(np.int32), start_of.astype(np.int32), position_of, window_mask
    )


def _slot_contents(slot_of: np.ndarray, num_slots: int) -> np.ndarray:
    """Returns int[N, S]: the position that each slot holds once each one is written; -1: none."""
    contents, current = [], np.full(num_slots, -1)
    for position, slot in enumerate(slot_of):
        current[slot] = position
        contents.append(current.copy())
    return np.stack(contents)
