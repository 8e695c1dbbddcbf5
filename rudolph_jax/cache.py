"""Keys and values of what a model has seen: of prompts, and of a segment that is being sampled.

# B sequences, P distinct prompts, T queries, M keys, H heads, K head size,
# S slots of a cache, W slots that a query sees
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax import cpu
from clip_jax.cpu import kv_cache
from rudolph_jax.cache_window import Window

KeyValue = tuple[jax.Array, jax.Array]  # keys and values
# Keys and values [P, H, M, K], and which of them a query attends to, bool[T, M] or bool[M]. All
# samples of a prompt share its keys and values.
Segment = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values of the segment that is being sampled.

    key_value: [B, H, S, K] each, bfloat16 as `empty` stores it.
    window: which slot a token is written to, and which slots it sees.
    place: int32[], of the token in the segment.
    first: int32[], the first place that the prompt does not hold already.
    """

    key_value: KeyValue
    window: Window
    place: jax.Array
    first: jax.Array

    def update(self, k: jax.Array, v: jax.Array) -> tuple[Segment, KeyValue]:
        """Writes a token's keys and values [B, H, 1, K] into its slot.

        Returns what the token attends to, itself included, and the next `key_value`.
        """
        window, place = self.window, self.place
        slot, start = jnp.asarray(window.slot)[place], jnp.asarray(window.first)[place]
        seen_places = jnp.asarray(window.places)[place]
        mask = jnp.asarray(window.allowed)[place] & (seen_places >= self.first)
        dtype, size = k.dtype, window.size
        if cpu.in_use():
            new = kv_cache.to_bits(k), kv_cache.to_bits(v)
            updated, seen = kv_cache.write_and_read(self.key_value, new, slot, start, size)
            keys, values = (kv_cache.from_bits(x, dtype) for x in seen)
        else:
            old_keys, old_values = self.key_value
            updated = (
                lax.dynamic_update_slice_in_dim(old_keys, k, slot, axis=2),
                lax.dynamic_update_slice_in_dim(old_values, v, slot, axis=2),
            )
            keys, values = (lax.dynamic_slice_in_dim(x, start, size, axis=2) for x in updated)
        return (keys, values, mask), updated


def empty(batch: int, heads: int, slots: int, head_size: int, dtype: jnp.dtype) -> KeyValue:
    """Returns zeros for `LayerCache.key_value`."""
    zeros = jnp.zeros((batch, heads, slots, head_size), dtype)
    zeros = kv_cache.to_bits(zeros) if cpu.in_use() else zeros
    return zeros, zeros
