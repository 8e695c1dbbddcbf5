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
    """Applies dropout to float[B, ...].

    keys: key[B]; None: x is returned as it is.
    salt: differs between the places in a model that share `keys`.
    """
    if keys is None or not rate:
        return x
    draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
    kept = draw(fold_in(keys, salt))
    if not cpu.in_use():
        # Fused into its users, the hash behind each number is computed again by each of them: six
        # times a layer for attention weights, a third of a step on a TPU.
        kept = jax.lax.optimization_barrier(kept)
    return jnp.where(kept, x / (1 - rate), 0)


def gumbel(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Samples Gumbel noise, float32[B, *shape]."""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32))(keys)
