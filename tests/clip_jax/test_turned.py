"""Kernels with their columns first: the same numbers, read as they lie."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.product import FEW_ROWS, product
from clip_jax.turned import Turned, cut_columns, turn, turn_kernels, turn_kernels_back

# Equation -> the kernel's shape, x's without the first axis, how many axes are summed over.
EQUATIONS = {
    "BTD,DcHK->BTcHK": ((8, 3, 2, 4), (1, 8), 1),
    "BHTK,HKD->BTD": ((2, 4, 8), (2, 1, 4), 2),
    "BTHK,HKD->BTD": ((2, 4, 8), (1, 2, 4), 2),
    "aD,DV->aV": ((8, 5), (8,), 1),
}


@pytest.fixture
def kernels(rng):
    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    return {
        "layers": {"0": {"attention": {"out_kernel": normal(2, 4, 8), "out_bias": normal(8)}}},
        "head": {"kernel": normal(8, 5), "bias": normal(5)},
        "kernel": normal(8, 5),
    }


def test_kernels_that_products_read_are_turned_and_come_back(kernels):
    made = turn_kernels(kernels)
    out, head = made["layers"]["0"]["attention"]["out_kernel"], made["head"]["kernel"]
    assert (out.values.shape, out.summed) == ((8, 2, 4), 2)
    np.testing.assert_array_equal(head.values, kernels["head"]["kernel"].T)
    assert made["kernel"] is kernels["kernel"]
    jax.tree.map(np.testing.assert_array_equal, turn_kernels_back(made), kernels)
    np.testing.assert_array_equal(
        cut_columns(head, slice(1, 3)).back(), cut_columns(kernels["head"]["kernel"], slice(1, 3))
    )


@pytest.mark.parametrize("rows", [1, 2, FEW_ROWS, FEW_ROWS + 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_product_is_that_of_the_kernel(rng, equation, dtype, rows):
    shape, others, summed = EQUATIONS[equation]
    kernel = rng.normal(size=shape).astype(np.float32)
    x = jnp.asarray(rng.normal(size=(rows, *others)), dtype)
    found = jax.jit(product, static_argnums=(0, 3))(
        equation, x, turn(kernel, summed).astype(dtype), False
    )
    expected = jnp.einsum(equation, x, jnp.asarray(kernel, dtype), preferred_element_type="float32")
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found.astype("float32"), expected.astype(dtype).astype("float32"),
        rtol=1e-5 if dtype == "float32" else 1e-2, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_few_rows_leave_a_kernel_in_its_dtype_on_the_left(rng, dtype):
    """Two in a row, since the compiler would carry one's order of axes on to the next."""
    kernels = [Turned(jnp.ones((64, 64), dtype), 1)] * 2

    def run(x, kernels):
        for kernel in kernels:
            x = jnp.sin(product("BD,DF->BF", x, kernel, True, jnp.float32)).astype(dtype)
        return x

    text = jax.jit(run).lower(jnp.ones((4, 64), dtype), kernels).compile().as_text()
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    assert len(re.findall(r" = f32\[64,4\]\S* dot\(", text)) == 2
    assert not re.search(r" = \w+\[64,64\]\S* (copy|transpose|convert|fusion)\(", text)
    assert f"{short}[64,64]" in text
