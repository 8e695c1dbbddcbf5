"""The key-value cache: of prompts, and of a segment that is being sampled.

# B sequences, P distinct prompts, T queries, M keys, H heads, K head size,
# S slots of a cache, W slots that a query attends to
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax import cpu
from clip_jax.cpu import kv_cache
from rudolph_jax.cache_window import TokenWindow

KeyValue = tuple[jax.Array, jax.Array]  # keys and values
# Keys and values [P, H, M, K], and which of them a query attends to, bool[T, M] or bool[M]. All
# samples of a prompt share its keys and values.
KeyValueMask = tuple[jax.Array, jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class LayerCache:
    """Keys and values of the segment that is being sampled, in one layer.

    key_value: [B, H, S, K] each, bfloat16 as `empty_cache` stores it.
    window: of the token whose keys and values come next.
    """

    key_value: KeyValue
    window: TokenWindow

    def update(self, k: jax.Array, v: jax.Array) -> tuple[KeyValueMask, KeyValue]:
        """Writes a token's keys and values [B, H, 1, K] into its slot.

        Returns what the token attends to, itself included, and the next `key_value`.
        """
        slot, start, mask = self.window
        dtype, size = k.dtype, len(mask)
        if cpu.in_use():
            new = kv_cache.to_bits(k), kv_cache.to_bits(v)
            updated, in_window = kv_cache.write_and_read(self.key_value, new, slot, start, size)
            keys, values = (kv_cache.from_bits(x, dtype) for x in in_window)
        else:
            old_keys, old_values = self.key_value
            # Indices that might be negative would be wrapped by kernels of their own.
            write = partial(
                lax.dynamic_update_slice_in_dim, start_index=slot, axis=2,
                allow_negative_indices=False,
            )  # fmt: skip
            read = partial(
                lax.dynamic_slice_in_dim, start_index=start, slice_size=size, axis=2,
                allow_negative_indices=False,
            )  # fmt: skip
            updated = write(old_keys, k), write(old_values, v)
            keys, values = (read(x) for x in updated)
        return (keys, values, mask), updated


def empty_cache(
    batch: int, heads: int, num_slots: int, head_size: int, dtype: jnp.dtype
) -> KeyValue:
    """Returns zeros for `LayerCache.key_value`."""
    zeros = jnp.zeros((batch, heads, num_slots, head_size), dtype)
    zeros = kv_cache.to_bits(zeros) if cpu.in_use() else zeros
    return zeros, zeros
