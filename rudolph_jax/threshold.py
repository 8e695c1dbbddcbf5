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
from clip_jax.platforms import traced_platform

Holds = bisection.Holds
# Comparisons of a pass up to which more bits at once are worth their comparisons. On a TPU, by its
# compiler's estimates for 1, 32 and 256 rows of codes: two bits a pass 0.16, 0.30 and 1.6 ms, four
# 0.16, 0.50 and 3.5, one 0.11, 0.40 and 2.0. A GPU compares faster and takes longer to launch.
SHORT_PASS = {"tpu": 1 << 17, "gpu": 1 << 22}


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
    longest = SHORT_PASS.get(traced_platform(), SHORT_PASS["gpu"])
    return next((bits for bits in (8, 4) if size << bits <= longest), 2)


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
