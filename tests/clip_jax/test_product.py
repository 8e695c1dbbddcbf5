import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Compute, PretrainedClip
from clip_jax.model import abstract_params
from clip_jax.product import product, with_bias

EQUATIONS = {
    "BTD,DcHK->BTcHK": ((2, 3, 8), (8, 3, 2, 4)),
    "BTHK,HKD->BTD": ((2, 3, 2, 4), (2, 4, 8)),
    "BnPmQC,PQCD->BnmD": ((2, 2, 4, 2, 4, 3), (4, 4, 3, 8)),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_wide_changes_neither_values_nor_gradients(equation, dtype):
    keys = jax.random.split(jax.random.key(0))
    x, kernel = (
        jax.random.normal(key, shape, jnp.float32).astype(dtype)
        for key, shape in zip(keys, EQUATIONS[equation], strict=True)
    )

    def run(wide):
        y, gradients = jax.vjp(lambda x, kernel: product(equation, x, kernel, wide), x, kernel)
        return y, *gradients(jnp.cos(y))

    for narrow, wide in zip(run(False), run(True), strict=True):
        assert wide.dtype == dtype and wide.shape == narrow.shape
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(
            wide.astype(jnp.float32), narrow.astype(jnp.float32), rtol=tolerance, atol=tolerance * 4
        )


def test_bfloat16_is_multiplied_as_it_lies_both_ways():
    """Every product takes bfloat16 and sums in float32; none turns a side into float32 first."""
    equation = "BTHK,HKD->BTD"
    x, kernel = (jnp.ones(shape, jnp.bfloat16) for shape in EQUATIONS[equation])

    def loss(x, kernel):
        return jnp.sin(product(equation, x, kernel, wide=True).astype(jnp.float32)).sum()

    program = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 3
    for line in products:
        *sides, result = re.findall(r"x([a-z]+[0-9]+)>", line.rpartition(" : ")[2])
        assert (sides, result) == (["bf16", "bf16"], "f32")


def test_float32_gradients_need_no_transposition():
    """Those of `einsum` do: a CPU takes longer for it than for many a product."""
    x, kernel = jnp.ones((2, 3, 8)), jnp.ones((8, 5))

    def program(wide):
        def loss(x, kernel):
            return product("BTD,DF->BTF", x, kernel, wide).sum()

        return str(jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel).jaxpr)

    assert "transpose" in program(False) and "transpose" not in program(True)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_wide_has_second_derivatives(equation):
    shapes = EQUATIONS[equation]
    x, kernel = (jnp.sin(jnp.arange(np.prod(shape)).reshape(shape)) for shape in shapes)

    def of_gradient(wide):
        def loss(x, kernel):
            return jnp.cos(product(equation, x, kernel, wide)).sum()

        return jax.grad(lambda x: jnp.sin(jax.grad(loss, 1)(x, kernel)).sum())(x)

    np.testing.assert_allclose(of_gradient(True), of_gradient(False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wide", [False, True])
def test_logits_are_not_rounded(wide):
    x, kernel = (jnp.full(shape, 0.1, jnp.bfloat16) for shape in ((1, 2, 3), (3, 4)))

    def logits(x, kernel):
        return product("BTD,DV->BTV", x, kernel, wide, jnp.float32)

    y, gradients = jax.vjp(logits, x, kernel)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, np.full((1, 2, 4), 3 * float(x[0, 0, 0]) ** 2), rtol=1e-6)
    assert {each.dtype for each in gradients(y)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("dtype", "asked", "wide"),
    [
        ("float32", None, True),
        ("bfloat16", None, False),
        ("float32", False, False),
        ("bfloat16", True, True),
    ],
)
def test_training_is_wide_in_float32_unless_told(dtype, asked, wide):
    assert Compute(dtype=dtype, wide=asked).wide_training is wide


@pytest.mark.parametrize("equation", EQUATIONS)
def test_one_row_is_what_it_is_among_others(equation):
    """On a CPU one row of bfloat16 is multiplied as two."""
    sides, out = equation.split("->")
    left = sides.split(",")[0]
    rows = [i for i, letter in enumerate(left) if letter in out]
    shape, kernel_shape = EQUATIONS[equation]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in (shape, kernel_shape))
    one = x[tuple(slice(1) if i in rows else slice(None) for i in range(x.ndim))]
    found = product(equation, one, kernel, wide=True)
    among = product(equation, x, kernel, wide=True)
    first = among[tuple(slice(1) if letter in left else slice(None) for letter in out)]
    assert found.shape == first.shape and found.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(y.astype(jnp.float32) for y in (found, first)), rtol=1e-2)
    program = jax.jit(lambda x: product(equation, x, kernel, wide=True)).lower(one)
    assert "optimization_barrier" in program.as_text()


@pytest.mark.parametrize("shape", [(6,), (3, 2, 5)])
def test_the_gradient_of_a_bias_is_summed_in_float32(shape):
    rng = np.random.default_rng(0)
    y = jnp.asarray(rng.normal(size=(4, 300, *shape)), jnp.bfloat16)
    weights = jnp.asarray(rng.normal(size=y.shape), jnp.bfloat16)
    bias = jnp.asarray(rng.normal(size=shape), jnp.float32)
    found, backward = jax.vjp(with_bias, y, bias)
    np.testing.assert_array_equal(found, y + bias.astype(jnp.bfloat16))
    of_y, of_bias = backward(weights)
    np.testing.assert_array_equal(of_y, weights)
    assert of_bias.dtype == jnp.float32
    expected = np.asarray(weights, np.float64).sum(axis=(0, 1))
    np.testing.assert_allclose(of_bias, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("asked", "wide"), [(None, True), (False, False)])
def test_loaded_models_are_wide_unless_told(small_config, monkeypatch, asked, wide):
    seen = set()

    def recorded(equation, x, kernel, wide):
        seen.add(wide)
        return product(equation, x, kernel, wide)

    shapes = abstract_params(small_config)
    params = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    monkeypatch.setattr("clip_jax.model.product", recorded)
    # Nobody else runs so many layers at once: the program is traced here.
    clip = PretrainedClip(small_config, params, compute=Compute(unroll=77, wide=asked))
    clip.encode_text(np.full((1, 3), small_config.eos_id, np.int32))
    assert seen == {wide}
