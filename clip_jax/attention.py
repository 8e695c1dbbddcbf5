"""Attention of a tower's tokens to each other.

# B sequences, T tokens, H heads, K head size

Source: Vaswani et al. 2017, section 3.2.1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax import cpu
from clip_jax.cpu.attention import attention as cpu_attention
from clip_jax.fused import fused_self_attention


def self_attention(qkv: jax.Array, causal: bool, fused: bool = True) -> jax.Array:
    """Attends with queries, keys and values float[B, T, 3, H, K] -> float[B, T, H, K].

    causal: a token attends to itself and those before it.
    fused: whether a kernel may do it (`clip_jax/fused`).
    """
    mask = np.tri(qkv.shape[1], dtype=bool) if causal else None
    y = fused_self_attention(qkv, mask) if fused else None
    if y is not None:
        return y
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    return attention(q, k, v, causal)


def attention(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """Attends in float32 without a kernel; float[B, T, H, K] each -> the same in their dtype."""
    if cpu.in_use():
        return cpu_attention(q, k, v, causal)
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)
