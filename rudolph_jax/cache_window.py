"""Which keys of a segment that is being written a layer keeps, and which of them it looks at.

# N tokens of the segment, S slots that are kept, W of them that a token looks at

A layer's mask makes most of the keys before a token useless. With the row mask of an image two
tokens wide (`masks.py`), a token at place p looks at p - 2, p - 1 and itself, so three slots that
are written in turn are enough; with the column mask it looks at one column, which lies in one piece
if the slots of a column do:

    place       0 1 2 3 4 5        place       0 1 2 3 4 5
    row: slot   0 1 2 0 1 2        column      0 3 1 4 2 5

Nothing but the mask decides: slots that hold something else are masked, and a token that some later
one may look at is never overwritten before.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import mask


@dataclasses.dataclass(frozen=True)
class Window:
    """slots: S. slot: int32[N], where the token at a place is kept. first: int32[N], where the W
    slots begin that it looks at. allowed: bool[N, W], which of them it may look at, itself among
    them. places: int32[N, W], which token each of them holds by then; -1: none yet.
    """

    slots: int
    slot: np.ndarray
    first: np.ndarray
    allowed: np.ndarray
    places: np.ndarray

    @property
    def size(self) -> int:
        return self.allowed.shape[1]


@lru_cache(maxsize=64)
def window(config: RudolphConfig, kind: str, segment: str, trimmed: bool = True) -> Window:
    """The smallest that a kind of mask allows, or with `trimmed` off the whole segment.

    segment: "left", "image" or "right". Text looks at all text before it, so it keeps all.
    """
    layout = Layout(config)
    written: slice = getattr(layout, segment)
    N, begin = written.stop - written.start, written.start + layout.prefix
    seen = mask(config, kind)[begin : written.stop, begin : written.stop]
    # Behind a prefix the last token lies past the image's end: nothing is predicted after it.
    seen = np.pad(seen, (0, layout.prefix))
    places = np.arange(N)
    asking, answering = np.nonzero(seen)
    d = config.image_tokens_per_side
    if trimmed and segment == "image" and kind == "column":
        row, column = np.divmod(places + layout.prefix, d)
        rows = int(row.max()) + 1
        slot, first, slots, size = column * rows + row, column * rows, rows * d, rows
    else:
        reach = int((asking - answering).max()) + 1
        slots = size = reach if trimmed else N
        slot, first = places % slots, np.zeros_like(places)
    held = _held(slot, slots)
    looked_at = np.take_along_axis(held, first[:, None] + np.arange(size), axis=1)
    allowed = np.take_along_axis(seen, np.maximum(looked_at, 0), axis=1) & (looked_at >= 0)
    if (allowed.sum(axis=1) != seen.sum(axis=1)).any():
        raise AssertionError(f"a {kind} window of {size} of {slots} slots loses allowed keys")
    return Window(slots, slot.astype(np.int32), first.astype(np.int32), allowed, looked_at)


def _held(slot: np.ndarray, slots: int) -> np.ndarray:
    """int[N, S]: the place of the token that each slot holds once a place is written; -1: none."""
    held, now = [], np.full(slots, -1)
    for place, where in enumerate(slot):
        now[where] = place
        held.append(now.copy())
    return np.stack(held)
