"""Products with float32 sums: the values and gradients of `jnp.einsum`, as XLA:CPU wants them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import cpu
from clip_jax.linear import einsum

EQUATIONS = {
    "BTD,DcHK->BTcHK": ((2, 3, 8), (8, 3, 2, 4)),
    "BTHK,HKD->BTD": ((2, 3, 2, 4), (2, 4, 8)),
    "BnPmQC,PQCD->BnmD": ((2, 2, 4, 2, 4, 3), (4, 4, 3, 8)),
}


def on_cpu(equation, *sides, dtype=None):
    with cpu.forms(True):
        return einsum(equation, *sides, dtype)


def elsewhere(equation, *sides, dtype=None):
    with cpu.forms(False):
        return einsum(equation, *sides, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_values_and_gradients_are_those_of_the_usual_product(equation, dtype):
    keys = jax.random.split(jax.random.key(0))
    sides = [
        jax.random.normal(key, shape, jnp.float32).astype(dtype)
        for key, shape in zip(keys, EQUATIONS[equation], strict=True)
    ]

    def run(form):
        y, gradients = jax.vjp(lambda x, kernel: form(equation, x, kernel), *sides)
        return y, *gradients(jnp.cos(y))

    for found, expected in zip(run(on_cpu), run(elsewhere), strict=True):
        assert found.dtype == dtype and found.shape == expected.shape
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(
            found.astype(jnp.float32), expected.astype(jnp.float32),
            rtol=tolerance, atol=tolerance * 4,
        )  # fmt: skip


def test_bfloat16_operands_are_multiplied_without_conversion_both_ways():
    """Finds bfloat16 operands and float32 sums in every product, and no conversion before."""
    equation = "BTHK,HKD->BTD"
    x, kernel = (jnp.ones(shape, jnp.bfloat16) for shape in EQUATIONS[equation])

    def loss(x, kernel):
        return jnp.sin(on_cpu(equation, x, kernel).astype(jnp.float32)).sum()

    program = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 3
    for line in products:
        *sides, result = re.findall(r"x([a-z]+[0-9]+)>", line.rpartition(" : ")[2])
        assert (sides, result) == (["bf16", "bf16"], "f32")


def test_float32_gradients_need_no_transposition():
    """Finds no transposition, unlike in those of `jnp.einsum`, which takes XLA:CPU long."""
    x, kernel = jnp.ones((2, 3, 8)), jnp.ones((8, 5))

    def program(form):
        def loss(x, kernel):
            return form("BTD,DF->BTF", x, kernel).sum()

        return str(jax.jit(jax.grad(loss, (0, 1))).trace(x, kernel).jaxpr)

    assert "transpose" in program(elsewhere) and "transpose" not in program(on_cpu)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_second_derivatives(equation):
    shapes = EQUATIONS[equation]
    x, kernel = (jnp.sin(jnp.arange(np.prod(shape)).reshape(shape)) for shape in shapes)

    def second(form):
        def loss(x, kernel):
            return jnp.cos(form(equation, x, kernel)).sum()

        return jax.grad(lambda x: jnp.sin(jax.grad(loss, 1)(x, kernel)).sum())(x)

    np.testing.assert_allclose(second(on_cpu), second(elsewhere), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", [on_cpu, elsewhere])
def test_logits_are_not_rounded(form):
    x, kernel = (jnp.full(shape, 0.1, jnp.bfloat16) for shape in ((1, 2, 3), (3, 4)))

    def logits(x, kernel):
        return form("BTD,DV->BTV", x, kernel, dtype=jnp.float32)

    y, gradients = jax.vjp(logits, x, kernel)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(y, np.full((1, 2, 4), 3 * float(x[0, 0, 0]) ** 2), rtol=1e-6)
    assert {each.dtype for each in gradients(y)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_one_row_is_what_it_is_among_others(equation):
    """A single row of bfloat16 is multiplied as two."""
    sides, out = equation.split("->")
    left = sides.split(",")[0]
    rows = [i for i, letter in enumerate(left) if letter in out]
    shape, kernel_shape = EQUATIONS[equation]
    rng = np.random.default_rng(0)
    x, kernel = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in (shape, kernel_shape))
    one = x[tuple(slice(1) if i in rows else slice(None) for i in range(x.ndim))]
    found, among = on_cpu(equation, one, kernel), on_cpu(equation, x, kernel)
    first = among[tuple(slice(1) if letter in left else slice(None) for letter in out)]
    assert found.shape == first.shape and found.dtype == jnp.bfloat16
    np.testing.assert_allclose(*(y.astype(jnp.float32) for y in (found, first)), rtol=1e-2)
    program = jax.jit(lambda x: on_cpu(equation, x, kernel)).lower(one)
    assert "optimization_barrier" in program.as_text()
