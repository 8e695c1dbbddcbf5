"""Linear maps: their bias, and where the forms for CPUs are used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from clip_jax import cpu
from clip_jax.linear import add_bias


@pytest.mark.parametrize("shape", [(6,), (3, 2, 5)])
def test_the_gradient_of_a_bias_is_summed_in_float32(shape):
    rng = np.random.default_rng(0)
    y = jnp.asarray(rng.normal(size=(4, 300, *shape)), jnp.bfloat16)
    weights = jnp.asarray(rng.normal(size=y.shape), jnp.bfloat16)
    bias = jnp.asarray(rng.normal(size=shape), jnp.float32)
    found, backward = jax.vjp(add_bias, y, bias)
    np.testing.assert_array_equal(found, y + bias.astype(jnp.bfloat16))
    y_gradient, bias_gradient = backward(weights)
    np.testing.assert_array_equal(y_gradient, weights)
    assert bias_gradient.dtype == jnp.float32
    expected = np.asarray(weights, np.float64).sum(axis=(0, 1))
    np.testing.assert_allclose(bias_gradient, expected, rtol=1e-5, atol=1e-4)


def test_the_platform_decides_unless_it_is_forced(monkeypatch):
    assert cpu.in_use()  # the tests' own
    with cpu.forms(False):
        assert not cpu.in_use()
        with cpu.forms(None):
            assert cpu.in_use()
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert not cpu.in_use()
    mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
    with jax.set_mesh(mesh):  # of CPU devices, whatever the default is
        assert cpu.in_use()


def test_a_jitted_function_is_traced_for_each_setting():
    traced = []

    @jax.jit
    def function(x):
        traced.append(cpu.in_use())
        return x

    for use in (True, False, True, False):
        with cpu.forms(use):
            function(1.0)
    assert traced == [True, False]
