"""Transposed kernels: the same numbers, read in memory order."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.cpu.transposed import (
    SMALL_M,
    TransposedKernel,
    transpose,
    transpose_kernels,
    untranspose_kernels,
)
from clip_jax.linear import einsum, slice_columns

# Equation -> the kernel's shape, x's without the first axis, how many axes are contracted.
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


def test_kernels_that_products_read_are_transposed_and_restored(kernels):
    made = transpose_kernels(kernels)
    out, head = made["layers"]["0"]["attention"]["out_kernel"], made["head"]["kernel"]
    assert (out.values.shape, out.num_contracted) == ((8, 2, 4), 2)
    np.testing.assert_array_equal(head.values, kernels["head"]["kernel"].T)
    assert made["kernel"] is kernels["kernel"]
    jax.tree.map(np.testing.assert_array_equal, untranspose_kernels(made), kernels)
    columns = slice(1, 3)
    np.testing.assert_array_equal(
        slice_columns(head, columns).to_kernel(), slice_columns(kernels["head"]["kernel"], columns)
    )


@pytest.mark.parametrize("rows", [1, 2, SMALL_M, SMALL_M + 1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("equation", EQUATIONS)
def test_a_product_is_that_of_the_kernel(rng, equation, dtype, rows):
    shape, others, contracted = EQUATIONS[equation]
    kernel = rng.normal(size=shape).astype(np.float32)
    x = jnp.asarray(rng.normal(size=(rows, *others)), dtype)
    found = jax.jit(einsum, static_argnums=0)(
        equation, x, transpose(kernel, contracted).astype(dtype)
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
    kernels = [TransposedKernel(jnp.ones((64, 64), dtype), 1)] * 2

    def run(x, kernels):
        for kernel in kernels:
            x = jnp.sin(einsum("BD,DF->BF", x, kernel, jnp.float32)).astype(dtype)
        return x

    text = jax.jit(run).lower(jnp.ones((4, 64), dtype), kernels).compile().as_text()
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    assert len(re.findall(r" = f32\[64,4\]\S* dot\(", text)) == 2
    assert not re.search(r" = \w+\[64,64\]\S* (copy|transpose|convert|fusion)\(", text)
    assert f"{short}[64,64]" in text
