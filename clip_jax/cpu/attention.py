"""Attention in chunks of queries.

# B sequences, T queries, S keys, H heads, K head size

XLA:CPU makes products and softmax several times slower where a head's scores outgrow a cache, and
multiplies scores by values that are not stored [B, H, S, K] at a tenth of the speed
(docs/performance_notes.md, "Encoders").
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

MAX_SCORE_BYTES = 1 << 18  # of one head and chunk in float32


def attention(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool) -> jax.Array:
    """Computes what `jax.nn.dot_product_attention` does; float[B, T, H, K] each, and returned."""
    q, k, v = (_heads_first(x) for x in (q, k, v))
    T = q.shape[2]
    y = [_attend(q[:, :, chunk], k, v, causal, chunk.start) for chunk in query_chunks(T, T)]
    return jnp.einsum("BHTK->BTHK", jnp.concatenate(y, axis=2)).astype(q.dtype)


def query_chunks(queries: int, keys: int) -> list[slice]:
    """Returns the fewest slices of nearly equal length whose scores fit in MAX_SCORE_BYTES."""
    longest = max(MAX_SCORE_BYTES // (4 * keys), 1)
    count = -(-queries // longest)
    ends = [queries * chunk // count for chunk in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def _heads_first(x: jax.Array) -> jax.Array:
    x = jnp.einsum("BTHK->BHTK", x)
    if x.dtype != jnp.bfloat16:  # nothing is gained, and such programs could not be exported
        return x
    # Otherwise the compiler keeps the order of x and multiplies in float32.
    return with_layout_constraint(x, Layout((0, 1, 2, 3)))


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, causal: bool, first: int) -> jax.Array:
    """Attends with the queries from `first` on, q [B, H, T, K], to float32[B, H, T, K]."""
    scores = jnp.einsum("BHTK,BHSK->BHTS", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if causal:
        mask = jnp.tril(jnp.ones(scores.shape[-2:], bool), first)
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(q.dtype)
    return jnp.einsum("BHTS,BHSK->BHTK", weights, v, preferred_element_type=jnp.float32)
