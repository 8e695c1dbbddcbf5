"""Random numbers that belong to a row of a batch, wherever the row is computed.

Each row has a key of its own, so one device, any mesh, `pmap`, and any cut into micro-batches draw
the same for it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def per_example_keys(rng: jax.Array, rows: jax.Array) -> jax.Array:
    """key[B] from a batch's key and the rows' numbers in the whole batch, int32[B]."""
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(rng, rows)


def fold_in(keys: jax.Array, number: jax.Array | int) -> jax.Array:
    """key[B]: other keys for another use, told apart by a number."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def dropout(x: jax.Array, rate: float, keys: jax.Array | None, number: int) -> jax.Array:
    """float[B, ...] with a share `rate` of the elements 0 and the others enlarged to match.

    keys: key[B], None leaves x as it is. number: tells the places in a model apart.
    """
    if keys is None or not rate:
        return x
    draw = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))
    return jnp.where(draw(fold_in(keys, number)), x / (1 - rate), 0)


def gumbel(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """float32[B, *shape]"""
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32))(keys)
