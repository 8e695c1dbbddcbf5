"""Batches of any size for programs of few sizes.

# B rows, N rows that a program is compiled for
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def bucket_size(count: int) -> int:
    """Rounds up to the next of 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...

    At most a third of a batch is padding.
    """
    if count < 3:
        return count
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if count <= power * 3 // 4 else power


def pad_batch(rows: Any, size: int) -> Any:
    """Pads [B, ...] to [size, ...] by repeating the last row; no change if B >= size."""
    if len(rows) >= size:
        return rows
    rows = np.asarray(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def pad_to_bucket(rows: Any, num_shards: int = 1) -> Any:
    """Pads [B, ...] to [N, ...], N a multiple of num_shards; a tracer is returned as it is."""
    if isinstance(rows, jax.core.Tracer):
        return rows
    return pad_batch(rows, num_shards * bucket_size(-(-len(rows) // num_shards)))


def unpad(padded: jax.Array, *counts: int) -> jax.Array:
    """Returns the first `counts` along the first axes; a tracer is sliced in its program.

    Slices on the host, which waits for the device: a slice on the device would need a program for
    each pair of sizes.
    """
    if padded.shape[: len(counts)] == counts:
        return padded
    if isinstance(padded, jax.core.Tracer):
        return padded[tuple(slice(count) for count in counts)]
    return jax.device_put(np.asarray(padded)[tuple(slice(count) for count in counts)])


def run_padded(function: Callable[[Any], jax.Array], rows: Any, num_shards: int = 1) -> jax.Array:
    """Pads [B, ...] to [N, ...], applies `function` and returns the first B rows."""
    return unpad(function(pad_to_bucket(rows, num_shards)), len(rows))
