"""Tests of the random numbers of single rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import cpu
from clip_jax.per_example_rng import dropout, per_example_keys

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
