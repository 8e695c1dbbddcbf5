"""Tests of the random numbers of single rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import cpu
from clip_jax.per_example_rng import dropout, fold_in, gumbel, per_example_keys

ROWS, RATE = 64, 0.1


def _dropped(tokens: int, cpu_kernels: bool = True) -> np.ndarray:
    keys = per_example_keys(jax.random.key(3), jnp.arange(ROWS))
    with cpu.forms(cpu_kernels):
        y = jax.jit(lambda keys: dropout(jnp.ones((ROWS, tokens, 64)), RATE, keys, 1))(keys)
    assert set(np.unique(y)) == {0, np.float32(1 / (1 - RATE))}
    return np.asarray(y) == 0


def test_both_halves_of_a_word_have_the_rate_and_are_independent():
    dropped = _dropped(tokens=208)
    deviation = np.sqrt(RATE * (1 - RATE) / (dropped.size / 2))
    halves = dropped[:, :104], dropped[:, 104:]
    for half in halves:
        assert abs(half.mean() - RATE) < 4 * deviation
    assert abs(np.corrcoef(*(half.ravel() for half in halves))[0, 1]) < 0.01


@pytest.mark.parametrize("tokens", [1, 7, 208])
def test_the_packed_form_draws_the_same(tokens):
    np.testing.assert_array_equal(_dropped(tokens), _dropped(tokens, cpu_kernels=False))


def test_a_row_draws_the_same_in_any_batch():
    keys = per_example_keys(jax.random.key(3), jnp.arange(8))
    x = jnp.ones((8, 7, 16))
    np.testing.assert_array_equal(dropout(x, RATE, keys, 1)[5:], dropout(x[5:], RATE, keys[5:], 1))
    assert not np.array_equal(dropout(x, RATE, keys, 1), dropout(x, RATE, keys, 2))


def test_without_keys_or_a_rate_nothing_is_dropped():
    x, keys = jnp.ones((2, 3)), per_example_keys(jax.random.key(3), jnp.arange(2))
    assert dropout(x, RATE, None, 1) is x and dropout(x, 0.0, keys, 1) is x


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9])
def test_the_mean_stays(rate):
    keys = per_example_keys(jax.random.key(5), jnp.arange(ROWS))
    y = np.asarray(dropout(jnp.full((ROWS, 50, 64), 3.0), rate, keys, 1))
    deviation = 3 * np.sqrt(rate / (1 - rate) / y.size)
    assert abs(y.mean() - 3) < 5 * deviation


def test_new_keys_follow_from_key_and_salt():
    keys = per_example_keys(jax.random.key(3), jnp.arange(4))
    derived = {salt: jax.random.key_data(fold_in(keys, salt)).tolist() for salt in (0, 1)}
    assert len({tuple(key) for both in derived.values() for key in both}) == 8
    alone = jax.random.key_data(fold_in(keys[2:3], 1)).tolist()
    assert alone == derived[1][2:3]


def test_noise_is_gumbel_s_and_each_row_s_own():
    keys = per_example_keys(jax.random.key(3), jnp.arange(8))
    noise = np.asarray(gumbel(keys, (100, 20)))
    assert noise.shape == (8, 100, 20) and noise.dtype == np.float32
    np.testing.assert_array_equal(gumbel(keys[5:6], (100, 20))[0], noise[5])
    deviation = np.pi / np.sqrt(6)
    assert abs(noise.mean() - np.euler_gamma) < 5 * deviation / np.sqrt(noise.size)
    assert abs(noise.std() - deviation) < 0.03
