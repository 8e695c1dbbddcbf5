"""Attention of a tower's tokens to each other.

# B sequences, T tokens, H heads, K head size

Source: Vaswani et al. 2017, section 3.2.1.
"""

from __future__ import annotations

import jax

from clip_jax import cpu
from clip_jax.cpu.attention import attention as cpu_attention


def attention(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """Attends in float32; float[B, T, H, K] each -> float[B, T, H, K] in their dtype.

    causal: a token attends to itself and those before it.
    """
    if cpu.in_use():
        return cpu_attention(q, k, v, causal)
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal)
