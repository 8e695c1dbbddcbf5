"""Products of activations with kernels, in the form in which a CPU multiplies fastest."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.layout import Layout, with_layout_constraint

from clip_jax.turned import Turned

PRODUCT = "product"  # of the results, for `jax.checkpoint`
# Up to as many rows a CPU's compiler is given a turned kernel as the left side of the product,
# which it reads as it lies; of a right side it makes a copy in the order of its registers.
FEW_ROWS = 32


def product(
    equation: str, x: jax.Array, kernel: jax.Array | Turned, wide: bool, dtype: Any = None
) -> jax.Array:
    """einsum of x and of a kernel in x's dtype; the result in `dtype`, None: in x's as well.

    equation: the kernel's summed axes are its first, and the result's last are the kernel's others.
        It is the same for a turned kernel, which is multiplied as if `wide`.
    wide: leave the compiler float32 sums and round them once. On a CPU it then multiplies bfloat16
        as it lies, here and in the backward pass; else it turns both sides into float32 first.
        Another device keeps float32 sums by itself. Gradients are made in the order of the axes,
        where those of `einsum` are transposed, for which a CPU takes long.
    """
    dtype = jnp.dtype(x.dtype if dtype is None else dtype)
    if isinstance(kernel, Turned):
        y = _turned(equation, dtype, x, kernel)
    elif wide:
        y = _wide(equation, dtype, x, kernel)
    else:
        y = jnp.einsum(equation, x, kernel, preferred_element_type=dtype)
    return checkpoint_name(y, PRODUCT)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _wide(equation: str, dtype: jnp.dtype, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _rounded_once(equation, dtype, x, kernel)


def _forward(
    equation: str, dtype: jnp.dtype, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _rounded_once(equation, dtype, x, kernel), (x, kernel)


def _backward(
    equation: str, dtype: jnp.dtype, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Its own rule, since that of `einsum` would multiply gradients of float32."""
    x, kernel = kept
    left, right, out = _letters(equation)
    gradient = gradient.astype(x.dtype)
    rows = "".join(letter for letter in left if letter in out)
    summed = "".join(letter for letter in right if letter in left)
    of_rows, of_summed = gradient.shape[: len(rows)], kernel.shape[: len(summed)]
    columns = math.prod(kernel.shape[len(summed) :])

    def plain(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        return _rounded_once(f"{out},{right}->{left}", x.dtype, gradient, kernel)

    def flat(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        gradient = gradient.reshape(*of_rows, columns)
        kernel = kernel.reshape(-1, columns)
        y = _rounded_once(f"{rows}Z,YZ->{rows}Y", x.dtype, gradient, kernel)
        return jnp.einsum(f"{rows}{summed}->{left}", y.reshape(*of_rows, *of_summed))

    return (
        # A CPU's compiler transposes a kernel that has several axes of columns or of sums.
        lax.platform_dependent(gradient, kernel, cpu=flat, default=plain),
        _rounded_once(f"{left},{out}->{right}", kernel.dtype, x, gradient),
    )


_wide.defvjp(_forward, _backward)


@jax.custom_vjp
def with_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """y and a bias for its last axes, in y's dtype; the bias's gradient is summed in float32."""
    return y + bias.astype(y.dtype)


def _with_bias_forward(y: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    return with_bias(y, bias), bias


def _with_bias_backward(bias: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Of bfloat16 with more than two axes, a CPU's compiler sums window by window, slowly.
    of_bias = gradient.reshape(-1, bias.size).sum(axis=0, dtype=jnp.float32)
    return gradient, of_bias.reshape(bias.shape).astype(bias.dtype)


with_bias.defvjp(_with_bias_forward, _with_bias_backward)


def _rounded_once(equation: str, dtype: jnp.dtype, x: jax.Array, kernel: jax.Array) -> jax.Array:
    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x, kernel, preferred_element_type=jnp.float32).astype(dtype)

    def doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
        twice = lax.optimization_barrier(jnp.concatenate([x, x], left.index(rows[0])))
        return lax.slice_in_dim(plain(twice, kernel), 0, 1, axis=out.index(rows[0]))

    left, _, out = _letters(equation)
    rows = [letter for letter in left if letter in out]
    if not rows or x.dtype != jnp.bfloat16 or any(x.shape[left.index(row)] > 1 for row in rows):
        return plain(x, kernel)
    # XLA's product of one row takes a CPU four times as long as that of two.
    return lax.platform_dependent(x, kernel, cpu=doubled, default=plain)


def _turned(equation: str, dtype: jnp.dtype, x: jax.Array, kernel: Turned) -> jax.Array:
    """The product as one of rows with columns, [R, S] and [C, S], whatever axes those have."""

    def plain(x: jax.Array, values: jax.Array) -> jax.Array:
        return jnp.einsum("RS,CS->RC", x, values, preferred_element_type=jnp.float32)

    def of_few_rows(x: jax.Array, values: jax.Array) -> jax.Array:
        # Unless both lie in the order of their axes, the compiler swaps the sides again.
        x = jnp.concatenate([x, x]) if doubled else x
        x = with_layout_constraint(x, Layout((0, 1)))
        y = jnp.einsum("CS,RS->CR", values, x, preferred_element_type=jnp.float32)
        y = with_layout_constraint(y, Layout((0, 1))).T
        return y[:1] if doubled else y

    left, right, out = _letters(equation)
    summed, columns = right[: kernel.summed], right[kernel.summed :]
    rows = out[: len(out) - len(columns)]
    x = jnp.einsum(f"{left}->{rows}{summed}", x)
    shape = x.shape[: len(rows)] + kernel.values.shape[: len(columns)]
    x = x.reshape(math.prod(x.shape[: len(rows)]), -1)
    # As in `_rounded_once`, of one row.
    doubled = len(x) == 1 and x.dtype == jnp.bfloat16
    values = jnp.reshape(kernel.values, (-1, x.shape[1]))
    if len(x) <= FEW_ROWS:
        y = lax.platform_dependent(x, values, cpu=of_few_rows, default=plain)
    else:
        y = plain(x, values)
    return y.astype(dtype).reshape(shape)


def _letters(equation: str) -> tuple[str, str, str]:
    sides, _, out = equation.partition("->")
    left, right = sides.split(",")
    return left, right, out
