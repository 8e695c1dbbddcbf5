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
from clip_jax.fused import fused_attention, fused_self_attention


def self_attention(qkv: jax.Array, causal: bool, fused: bool = True) -> jax.Array:
    """Attends with queries, keys and values float[B, T, 3, H, K] -> float[B, T, H, K].

    causal, fused: as of `attention`.
    """
    mask = np.tri(qkv.shape[1], dtype=bool) if causal else None
    y = fused_self_attention(qkv, mask) if fused else None
    if y is not None:
        return y
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    return attention(q, k, v, causal, fused)


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, fused: bool = True
) -> jax.Array:
    """Attends in float32; float[B, T, H, K] each -> float[B, T, H, K] in their dtype.

    causal: a token attends to itself and those before it.
    fused: whether a kernel may do it (`clip_jax/fused`).
    """
    if fused:
        T, K = q.shape[1], q.shape[3]
        mask = np.tri(T, dtype=bool) if causal else None
        scaled, keys, values = (jnp.einsum("BTHK->BHTK", x) for x in (q * K**-0.5, k, v))
        y = fused_attention(scaled, keys, values, mask)
        if y is not None:
            return jnp.einsum("BHTK->BTHK", y)
    if cpu.in_use():
        return cpu_attention(q, k, v, causal)
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)
