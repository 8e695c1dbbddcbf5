"""Bisection over the bits of a threshold.

A CPU is limited by the sums themselves, and skips a search that is off. Elsewhere each sum is a
launch that waits for the one before, and a condition waits for the host
(`rudolph_jax/threshold.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Holds = Callable[[jax.Array], jax.Array]  # bool[..., V] -> bool[...]


def largest_threshold(
    order: jax.Array, make_holds: Callable[[], Holds], needed: jax.Array
) -> jax.Array:
    """Finds thresholds, uint32[..., V] -> uint32[...]; see `rudolph_jax/threshold.py`."""

    def search() -> jax.Array:
        holds = make_holds()

        def bit(i: jax.Array, threshold: jax.Array) -> jax.Array:
            higher = threshold | (jnp.uint32(1 << 31) >> i.astype(jnp.uint32))
            return jnp.where(holds(order >= higher[..., None]), higher, threshold)

        return lax.fori_loop(0, 32, bit, jnp.zeros(order.shape[:-1], jnp.uint32))

    return lax.cond(needed, search, lambda: jnp.zeros(order.shape[:-1], jnp.uint32))
