"""Batches of any size for programs of few sizes.

# B rows, N rows that a program is compiled for
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def bucket_size(count: int) -> int:
    """N, the next of 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...: B is at least two thirds of it."""
    if count < 3:
        return count
    power = 1 << (count - 1).bit_length()
    return power * 3 // 4 if count <= power * 3 // 4 else power


def fill(rows: Any, size: int) -> Any:
    """[B, ...] -> [size, ...] by the last row again and again; as they are if there are as many."""
    if len(rows) >= size:
        return rows
    rows = np.asarray(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])


def pad_to_bucket(rows: Any, shares: int = 1) -> Any:
    """[B, ...] -> [N, ...], N a multiple of shares; what is being traced stays as it is."""
    if isinstance(rows, jax.core.Tracer):
        return rows
    return fill(rows, shares * bucket_size(-(-len(rows) // shares)))


def cut(filled: jax.Array, *counts: int) -> jax.Array:
    """The first `counts` along the first axes.

    On the host, where it is any work: a device would compile a program for each pair of sizes.
    """
    if filled.shape[: len(counts)] == counts:
        return filled
    return jax.device_put(np.asarray(filled)[tuple(slice(count) for count in counts)])


def run_padded(function: Callable[[Any], jax.Array], rows: Any, shares: int = 1) -> jax.Array:
    """function([N, ...]) -> [N, ...] for [B, ...] -> [B, ...]."""
    return cut(function(pad_to_bucket(rows, shares)), len(rows))
