"""Attention in chunks of queries: the values of the usual form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import cpu
from clip_jax.attention import attention
from clip_jax.cpu import attention as module
from clip_jax.cpu.attention import MAX_SCORE_BYTES, query_chunks


@pytest.fixture(scope="module")
def q_k_v():
    return tuple(
        jax.random.normal(key, (2, 7, 3, 4)) for key in jax.random.split(jax.random.key(0), 3)
    )


def by_hand(q, k, v, causal):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    y = np.zeros_like(q)
    for b, t, h in np.ndindex(q.shape[:3]):
        seen = t + 1 if causal else q.shape[1]
        weights = np.exp(k[b, :seen, h] @ q[b, t, h] / 2)  # the root of K = 4
        y[b, t, h] = weights @ v[b, :seen, h] / weights.sum()
    return y


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("use", [False, True])
def test_each_token_by_hand(q_k_v, causal, use):
    with cpu.forms(use):
        found = attention(*q_k_v, causal)
    np.testing.assert_allclose(found, by_hand(*q_k_v, causal), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("queries", "keys", "count"), [(1, 1, 1), (256, 256, 1), (257, 257, 2), (577, 577, 6)]
)
def test_chunks_are_the_fewest_whose_scores_fit(queries, keys, count):
    found = query_chunks(queries, keys)
    lengths = [chunk.stop - chunk.start for chunk in found]
    assert [i for chunk in found for i in range(chunk.start, chunk.stop)] == list(range(queries))
    assert len(found) == count and max(lengths) - min(lengths) <= 1
    assert all(4 * keys * length <= MAX_SCORE_BYTES for length in lengths)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("longest", [1, 3])
def test_chunked_attention_equals_attention(q_k_v, causal, longest, monkeypatch):
    monkeypatch.setattr(module, "MAX_SCORE_BYTES", 4 * 7 * longest)
    found = module.attention(*q_k_v, causal)
    np.testing.assert_allclose(found, by_hand(*q_k_v, causal), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_both_forms_have_the_same_gradients(q_k_v, causal):
    def gradients(use):
        with cpu.forms(use):
            return jax.grad(lambda q_k_v: (attention(*q_k_v, causal) ** 3).sum())(q_k_v)

    for a, b in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_bfloat16_comes_back_and_is_near(q_k_v):
    low = tuple(x.astype(jnp.bfloat16) for x in q_k_v)
    found = module.attention(*low, causal=True)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), by_hand(*low, True), atol=0.03)
