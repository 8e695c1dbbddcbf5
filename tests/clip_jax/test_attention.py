import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import attention as module
from clip_jax.attention import FAST, attention, turns


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
@pytest.mark.parametrize("wide", [False, True])
def test_each_token_by_hand(q_k_v, causal, wide):
    found = attention(*q_k_v, causal, wide)
    np.testing.assert_allclose(found, by_hand(*q_k_v, causal), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("asking", "answering", "count"), [(1, 1, 1), (256, 256, 1), (257, 257, 2), (577, 577, 6)]
)
def test_all_tokens_ask_in_the_fewest_turns_that_are_fast(asking, answering, count):
    found = turns(asking, answering)
    lengths = [turn.stop - turn.start for turn in found]
    assert [i for turn in found for i in range(turn.start, turn.stop)] == list(range(asking))
    assert len(found) == count and max(lengths) - min(lengths) <= 1
    assert all(4 * answering * length <= FAST for length in lengths)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("most", [1, 3])
def test_turns_change_nothing(q_k_v, causal, most, monkeypatch):
    monkeypatch.setattr(module, "FAST", 4 * 7 * most)
    found = attention(*q_k_v, causal, wide=True)
    np.testing.assert_allclose(found, by_hand(*q_k_v, causal), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
def test_both_forms_have_the_same_gradients(q_k_v, causal):
    def loss(q_k_v, wide):
        return (attention(*q_k_v, causal, wide) ** 3).sum()

    wide, plain = (jax.grad(loss)(q_k_v, wide) for wide in (True, False))
    for a, b in zip(wide, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


def test_bfloat16_comes_back_and_is_near(q_k_v):
    low = tuple(x.astype(jnp.bfloat16) for x in q_k_v)
    found = attention(*low, causal=True, wide=True)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), by_hand(*low, True), atol=0.03)
