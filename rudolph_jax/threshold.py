"""The largest threshold that keeps enough of a row, found by its bits.

# V values of a row

The search costs a fraction of sorting the rows.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax import cpu
from clip_jax.cpu import bisection

Holds = bisection.Holds
# Comparisons of a pass below which eight bits at once cost no more than four: the pass is then as
# short as its launch.
SHORT_PASS = 1 << 22


def largest_threshold(
    order: jax.Array, make_holds: Callable[[], Holds], needed: jax.Array
) -> jax.Array:
    """Finds uint32[...], the largest threshold for which `holds(order >= threshold)`, else 0.

    order: uint32[..., V].
    make_holds: () -> holds, which tests bool[..., V] and is true for small thresholds and false
        from some value on.
    needed: bool[], whether to search; 0 otherwise.
    """
    if cpu.in_use():
        return bisection.largest_threshold(order, make_holds, needed)
    return jnp.where(needed, search_by_digits(order, make_holds(), digit_bits(order.size)), 0)


def digit_bits(size: int) -> int:
    """Returns how many bits of the threshold a pass over `size` values settles."""
    return 8 if size << 8 <= SHORT_PASS else 4


def search_by_digits(order: jax.Array, holds: Holds, bits: int) -> jax.Array:
    """Finds thresholds digit by digit, all values of a digit in one pass over the row.

    bits: of a digit; it divides 32.
    """
    threshold = jnp.zeros(order.shape[:-1], jnp.uint32)
    digits = np.arange(1, 1 << bits, dtype=np.uint32)
    test = jax.vmap(lambda candidate: holds(order >= candidate[..., None]), -1, -1)
    for shift in reversed(range(0, 32, bits)):
        candidates = threshold[..., None] | (digits << shift)
        threshold = jnp.where(test(candidates), candidates, threshold[..., None]).max(axis=-1)
    return threshold
