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
# Comparisons of a pass up to which more bits at once are worth their comparisons, by the estimates
# of the TPU's compiler. For 256 rows of codes two bits take 1.6 ms, four 3.5, one at a time 2.4.
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
    return next((bits for bits in (8, 4) if size << bits <= SHORT_PASS), 2)


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
