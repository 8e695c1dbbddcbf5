"""In-place updates of a sampler's keys and values.

XLA:CPU copies a cache on every step of a loop where it fuses the write into what reads the cache,
and converts a whole bfloat16 cache to float32 and back to write one slot of it.
"""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

Arrays = TypeVar("Arrays")  # a tree of them


def to_bits(x: jax.Array) -> jax.Array:
    """Casts bfloat16 to uint16 of the same bits, written in place; returns others as they are."""
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 else x


def from_bits(x: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Reverses `to_bits`."""
    return x if x.dtype == dtype else lax.bitcast_convert_type(x, dtype)


def write_and_read(
    cache: Arrays, new: Arrays, slot: jax.Array, start: jax.Array, size: int
) -> tuple[Arrays, Arrays]:
    """Writes arrays [B, H, 1, K] into a slot of arrays [B, H, S, K]; see `rudolph_jax/cache.py`.

    Returns the updated cache, and its slots from `start` on, [B, H, size, K].
    """

    def read(x: jax.Array) -> jax.Array:
        return lax.dynamic_slice_in_dim(x, start, size, axis=2)

    def write(old: Arrays, new: Arrays, at: jax.Array) -> Arrays:
        return jax.tree.map(
            lambda a, b: lax.dynamic_update_slice_in_dim(a, b, at, axis=2), old, new
        )

    first = jax.tree.leaves(cache)[0]
    windowed = size < first.shape[2]
    # The barriers, and the order of reading and writing in each dtype, keep the compiler from
    # fusing a write into what reads it.
    if windowed and first.dtype == jnp.float32:
        seen = lax.optimization_barrier(jax.tree.map(read, cache))
        seen = lax.optimization_barrier(write(seen, new, slot - start))
        return write(cache, seen, start), seen
    updated = lax.optimization_barrier(write(cache, new, slot))
    return updated, jax.tree.map(read, updated) if windowed else updated
