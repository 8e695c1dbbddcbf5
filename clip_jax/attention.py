"""Attention of a tower's tokens to each other.

# B sequences, T tokens that ask, S tokens that answer (as many), H heads, K head size

Source: Vaswani et al. 2017, section 3.2.1.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

# Of a head's weights in float32, in bytes: of more a CPU's compiler makes products and softmax
# several times slower (docs/performance.md, "Encoders").
FAST = 1 << 18


def attention(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, wide: bool) -> jax.Array:
    """float[B, T, H, K] each -> [B, T, H, K] in their dtype; the softmax is float32.

    causal: a token looks at itself and those before it.

    wide: the form for a CPU. Heads come before tokens, since XLA multiplies the weights with values
        that lie otherwise at a tenth of the speed (docs/performance.md, "Encoders"), bfloat16 is
        multiplied as it lies, and many tokens ask in turns. Else `jax.nn.dot_product_attention`.
    """
    if not wide:
        return jax.nn.dot_product_attention(q, k, v, is_causal=causal)
    q, k, v = (_heads_first(x) for x in (q, k, v))
    T = q.shape[2]
    y = [_answers(q[:, :, asking], k, v, causal, asking.start) for asking in turns(T, T)]
    return jnp.einsum("BHTK->BTHK", jnp.concatenate(y, axis=2)).astype(q.dtype)


def turns(asking: int, answering: int) -> list[slice]:
    """The tokens that ask, as few slices of about as many as have weights of at most `FAST`."""
    most = max(FAST // (4 * answering), 1)
    count = -(-asking // most)
    ends = [asking * turn // count for turn in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _heads_first(x: jax.Array) -> jax.Array:
    x = jnp.einsum("BTHK->BHTK", x)
    if x.dtype != jnp.bfloat16:  # nothing is gained, and such programs could not be exported
        return x
    # Else the compiler leaves them in their places and multiplies them in float32.
    return with_layout_constraint(x, Layout((0, 1, 2, 3)))


def _answers(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, first: int) -> jax.Array:
    """float32[B, H, T, K] for q [B, H, T, K], the tokens from `first` on."""
    scores = jnp.einsum("BHTK,BHSK->BHTS", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if causal:
        allowed = jnp.tril(jnp.ones(scores.shape[-2:], bool), first)
        scores = jnp.where(allowed, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    return jnp.einsum("BHTS,BHSK->BHTK", weights, v, preferred_element_type=jnp.float32)
