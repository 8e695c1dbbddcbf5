"""Mean and variance of the last axis, in the form that suits the platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from clip_jax import cpu


def mean_and_variance(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Computes float32[..., 1] each of float[..., D], in float32.

    Off the CPU both sums of an x of 16 bits are taken in one pass over it; what cancels in their
    difference is below the rounding of x.
    """
    y = x.astype(jnp.float32)
    mean = y.mean(-1, keepdims=True)
    if x.dtype == jnp.float32 or cpu.in_use():
        return mean, jnp.square(y - mean).mean(-1, keepdims=True)
    return mean, jnp.maximum(jnp.square(y).mean(-1, keepdims=True) - jnp.square(mean), 0)
