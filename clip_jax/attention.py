"""Attention of a tower's tokens to each other.

# B sequences, T tokens that ask, S tokens that answer (as many), H heads, K head size

Source: Vaswani et al. 2017, section 3.2.1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def attention(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, wide: bool) -> jax.Array:
    """float[B, T, H, K] each -> [B, T, H, K] in their dtype; the softmax is float32.

    causal: a token looks at itself and those before it.

    wide: the form for a CPU. Heads come before tokens, since XLA multiplies the weights with values
        that lie otherwise at a tenth of the speed (docs/performance.md, "Encoders"), and bfloat16
        is multiplied as it lies. Else `jax.nn.dot_product_attention`.
    """
    if not wide:
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    q, k, v = (jnp.einsum("BTHK->BHTK", x) for x in (q, k, v))
    scores = jnp.einsum("BHTK,BHSK->BHTS", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if causal:
        allowed = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    y = jnp.einsum("BHTS,BHSK->BHTK", weights, v, preferred_element_type=jnp.float32)
    return jnp.einsum("BHTK->BTHK", y).astype(q.dtype)
