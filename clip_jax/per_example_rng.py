"""Per-example random numbers: each row of a batch has its own key.

One device, any mesh, `pmap` and any split into micro-batches therefore draw the same for a row.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from clip_jax import cpu


def per_example_keys(rng: jax.Array, indices: jax.Array) -> jax.Array:
    """Derives key[B] from a batch's key and the rows' indices in the global batch, int32[B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, indices)


def fold_in(keys: jax.Array, salt: jax.Array | int) -> jax.Array:
    """Derives new keys, key[B], for another use of random numbers."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, salt)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, salt: int) -> jax.Array:
    """Applies dropout to float[B, T, ...].

    rate: rounded to a multiple of 2**-16 where the numbers are drawn.
    keys: key[B]; None: x is returned as it is.
    salt: differs between the places in a model that share `keys`.
    """
    if keys is None or not rate:
        return x
    keep = _bernoulli(fold_in(keys, salt), 1 - rate, x.shape[1:])
    return jnp.where(keep, x / (1 - rate), 0)


def _bernoulli(keys: jax.Array, probability: float, shape: tuple[int, ...]) -> jax.Array:
    """Draws bool[B, T, ...] of shape (T, ...) a key, from 16 bits each.

    A 32-bit word serves two values, t and t + T/2: hashing is most of what dropout costs on a TPU.
    """
    T = shape[0]
    half = -(-T // 2)
    words = jax.vmap(lambda key: jax.random.bits(key, (half, *shape[1:]), jnp.uint32))(keys)
    threshold = round(probability * 2**16)
    low, high = (words & 0xFFFF) < threshold, (words >> 16) < threshold
    if cpu.in_use():
        return jnp.concatenate([low, high], axis=1)[:, :T]
    # Fused into its users, the hash behind each number is computed again by each of them: six
    # times a layer for attention weights, a third of a step on a TPU. Behind the barrier both
    # values are bits of one byte, which is what the concatenation copies.
    packed = jax.lax.optimization_barrier(low.astype(jnp.uint8) | high.astype(jnp.uint8) << 1)
    both = jnp.concatenate([packed, packed], axis=1)[:, :T]
    which = (jnp.arange(T) >= half).astype(jnp.uint8).reshape(T, *[1] * (len(shape) - 1))
    return (both >> which) & 1 == 1


def gumbel(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Samples Gumbel noise, float32[B, *shape]."""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32))(keys)
