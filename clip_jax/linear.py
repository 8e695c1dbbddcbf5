"""Linear maps of modules: a kernel, a bias, and the product in the form that suits the platform."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from clip_jax import cpu, tpu
from clip_jax.cpu import transposed
from clip_jax.cpu.einsum import einsum as cpu_einsum
from clip_jax.cpu.einsum import letters
from clip_jax.cpu.transposed import TransposedKernel, is_transposed
from clip_jax.fp8 import round_gradient, round_operands
from clip_jax.fused import heads_are_sharded

FEWEST_ROWS = 8  # of a tile of float32 on a TPU
MATMUL = "matmul"  # checkpoint name of the results
Initializer = Callable[..., jax.Array]


def linear(
    module: nn.Module,
    name: str,
    equation: str,
    x: jax.Array,
    shape: tuple[int, ...],
    init: Initializer,
) -> jax.Array:
    """Computes einsum(equation, x, kernel) + bias in x's dtype.

    name: of the module's parameters, "{name}_kernel" and "{name}_bias".
    equation: the kernel's contracted axes are its first, and the result's last are its others,
        which the bias has, too.
    shape: of the kernel.
    init: of the kernel; the bias begins with zeros.
    """
    left, right, _ = letters(equation)
    contracted = sum(letter in left for letter in right)
    kernel = get_kernel(module, f"{name}_kernel", init, shape).astype(x.dtype)
    bias = module.param(f"{name}_bias", nn.initializers.zeros, shape[contracted:])
    if is_transposed(kernel):
        return checkpoint_name(add_bias(_product(equation, x, kernel, x.dtype), bias), MATMUL)
    x, kernel = round_operands(x, kernel)
    if left.endswith(right[:contracted]) and not cpu.in_use() and not heads_are_sharded():
        return _matrix_product(x, kernel, bias, contracted)
    y = round_gradient(_product(equation, x, kernel, x.dtype))
    return checkpoint_name(add_bias(y, bias), MATMUL)


def _matrix_product(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, contracted: int
) -> jax.Array:
    """Multiplies matrices, which keeps heads and their size one axis in memory.

    With both as axes a TPU pads a head size of 64 to 128 lanes, and copies before and after each
    kernel of attention.
    """
    rows, inputs = x.shape[: x.ndim - contracted], x.shape[x.ndim - contracted :]
    flat = x.reshape(*rows, math.prod(inputs))
    matrix, sum_rows = kernel.reshape(flat.shape[-1], -1), _sum_rows
    if tpu.in_use(x.dtype) and tpu.are_narrow_heads(bias.shape):
        matrix, sum_rows = tpu.row_major_gradient(matrix), tpu.sum_rows
    y = round_gradient(_accelerator_einsum("...D,DF->...F", flat, matrix, x.dtype))
    y = checkpoint_name(add_bias(y, bias.reshape(-1), sum_rows), MATMUL)
    return y.reshape(*rows, *bias.shape)


def get_kernel(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...]) -> Any:
    """Returns a module's parameter, or the TransposedKernel that replaces it."""
    if module.has_variable("params", name):
        given: Any = module.get_variable("params", name)
        if is_transposed(given):
            return given
    return module.param(name, init, shape)


def einsum(
    equation: str, x: jax.Array, kernel: jax.Array | TransposedKernel, dtype: Any = None
) -> jax.Array:
    """Multiplies x by a kernel of its dtype; the result in `dtype`, None: in x's as well.

    equation: as in `linear`; of the kernel as the model describes it where it is transposed.
    """
    dtype = jnp.dtype(x.dtype if dtype is None else dtype)
    return checkpoint_name(_product(equation, x, kernel, dtype), MATMUL)


def _product(
    equation: str, x: jax.Array, kernel: jax.Array | TransposedKernel, dtype: Any
) -> jax.Array:
    if isinstance(kernel, TransposedKernel):
        return transposed.einsum(equation, dtype, x, kernel)
    if cpu.in_use():
        return cpu_einsum(equation, dtype, x, kernel)
    return _accelerator_einsum(equation, x, kernel, dtype)


def _accelerator_einsum(equation: str, x: jax.Array, kernel: jax.Array, dtype: Any) -> jax.Array:
    """Multiplies by matrix units, a single row too.

    XLA turns a product of one row into a sum of products, element by element, which on a TPU takes
    three times as long as the matrix unit with seven rows of zeros.
    """
    left, right, _ = letters(equation)
    contracted = sum(letter in left for letter in right)
    row_axes = x.ndim - contracted
    if not row_axes or math.prod(x.shape[:row_axes]) != 1:
        return jnp.einsum(equation, x, kernel, preferred_element_type=dtype)
    padded = jnp.pad(x, [(0, FEWEST_ROWS - 1)] + [(0, 0)] * (x.ndim - 1))
    return jnp.einsum(equation, padded, kernel, preferred_element_type=dtype)[:1]


def slice_columns(kernel: Any, columns: slice) -> Any:
    """Slices columns of a kernel, float[D, V] -> float[D, C]; it may be a TransposedKernel."""
    return kernel.slice_columns(columns) if is_transposed(kernel) else kernel[:, columns]


def _sum_rows(x: jax.Array) -> jax.Array:
    # Along one axis: a sum over several is compiled as a window that moves, which is slower.
    return x.reshape(-1, x.shape[-1]).sum(axis=0, dtype=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def add_bias(
    y: jax.Array, bias: jax.Array, sum_rows: Callable[[jax.Array], jax.Array] = _sum_rows
) -> jax.Array:
    """Adds a bias to the last axes, in y's dtype; the bias's gradient is summed in float32.

    sum_rows: float[..., F] -> float32[F].
    """
    return y + bias.astype(y.dtype)


def _add_bias_forward(
    y: jax.Array, bias: jax.Array, sum_rows: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    return add_bias(y, bias, sum_rows), bias


def _add_bias_backward(
    sum_rows: Callable[[jax.Array], jax.Array], bias: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    rows = gradient.shape[: gradient.ndim - bias.ndim]
    total = sum_rows(gradient.reshape(*rows, bias.size))
    return gradient, total.reshape(bias.shape).astype(bias.dtype)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)
