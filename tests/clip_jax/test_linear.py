"""Linear maps: their bias, and where the forms for CPUs and TPUs are used."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from clip_jax import Compute, cpu, tpu
from clip_jax.linear import add_bias, linear
from clip_jax.model import remat_policy


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


class _Heads(nn.Module):
    """Makes queries, keys and values of heads of 8, as attention does."""

    @nn.compact
    def __call__(self, x):
        return linear(self, "qkv", "BTD,DcHK->BTcHK", x, (16, 3, 2, 8), nn.initializers.normal())


def test_forms_for_tpus_give_the_gradients_of_the_usual_ones():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 37, 16)), jnp.bfloat16)
    weights = jnp.asarray(rng.normal(size=(4, 37, 3, 2, 8)), jnp.bfloat16)
    params = _Heads().init(jax.random.key(0), x)
    params["params"]["qkv_bias"] = jnp.asarray(rng.normal(size=(3, 2, 8)), jnp.float32)

    def run(params, x):
        y = _Heads().apply(params, x)
        return jnp.vdot(y, weights, preferred_element_type=jnp.float32), y

    found = {}
    for use in (True, False):
        with cpu.forms(False), tpu.forms(use):
            program = jax.jit(jax.grad(run, argnums=(0, 1), has_aux=True)).lower(params, x)
            assert ("LayoutConstraint" in program.as_text()) == use
            found[use] = program.compile()(params, x)
    jax.tree.map(np.testing.assert_array_equal, found[True][0][1], found[False][0][1])
    np.testing.assert_array_equal(found[True][1], found[False][1])
    for name, own in found[True][0][0]["params"].items():
        usual = np.asarray(found[False][0][0]["params"][name], np.float32)
        np.testing.assert_allclose(own, usual, rtol=1e-5, atol=1e-4, err_msg=name)
    total = np.asarray(weights, np.float64).sum(axis=(0, 1))
    np.testing.assert_allclose(found[True][0][0]["params"]["qkv_bias"], total, rtol=1e-5, atol=1e-4)


def test_forms_for_tpus_are_for_bfloat16_there(monkeypatch):
    assert not tpu.in_use(jnp.bfloat16)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert tpu.in_use(jnp.bfloat16) and not tpu.in_use(jnp.float32)
    with tpu.forms(False):
        assert not tpu.in_use(jnp.bfloat16)
    assert tpu.are_narrow_heads((3, 12, 64)) and not tpu.are_narrow_heads((3, 16, 128))
    assert not tpu.are_narrow_heads((96,))


def test_what_is_saved_has_its_bias():
    """So the backward pass reads it as it is: adding the bias again is another pass over it."""
    x = jnp.ones((2, 5, 16))
    params = _Heads().init(jax.random.key(0), x)

    def run(params):
        return jnp.sin(_Heads().apply(params, x)).sum()

    for use in (True, False):
        with cpu.forms(use):
            saved = jax.checkpoint(run, policy=remat_policy(Compute(remat="dots")))
            jaxpr = jax.make_jaxpr(jax.grad(saved))(params)
        (again,) = [e for e in jaxpr.eqns if e.primitive.name in ("checkpoint", "remat2")]
        text = str(again.params["jaxpr"])  # with the functions that it calls
        # Of gradients alone: the CPU's form gives that of x besides the kernel's.
        assert text.count(" dot_general[") == (2 if use else 1)
        assert " cos " in text and " add " not in text
