import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.activation import ACTIVATIONS, activate


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_bfloat16_is_rounded_once(name):
    x = jnp.asarray(np.random.default_rng(0).normal(scale=2, size=2000), jnp.bfloat16)
    found = activate(name, x)
    assert found.dtype == jnp.bfloat16
    exact = ACTIVATIONS[name](x.astype(jnp.float32))
    # Half a unit in the last place, and the rounding of `exact`, which another program computed.
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=1.01 * 2**-8, atol=1e-6)
    often = ACTIVATIONS[name](x)  # rounded after each operation
    once_off, often_off = (np.abs(y.astype(jnp.float32) - exact).mean() for y in (found, often))
    assert often_off > 1.1 * once_off


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_backward_pass_keeps_the_input_alone(name):
    x = jnp.linspace(-3, 3, 64, dtype=jnp.bfloat16)
    _, backward = jax.vjp(lambda x: activate(name, x), x)
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.size > 1]
    assert [(leaf.shape, leaf.dtype) for leaf in kept] == [(x.shape, jnp.bfloat16)]
    (found,) = backward(jnp.ones_like(x))
    expected = jax.vmap(jax.grad(ACTIVATIONS[name]))(x.astype(jnp.float32))
    np.testing.assert_allclose(found.astype(jnp.float32), expected, atol=5e-3)
