"""Products of activations with kernels whose sums are float32 and are rounded once.

XLA:CPU then multiplies bfloat16 operands as they are stored, forward and backward; for
bfloat16 results it converts both operands to float32 first.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def einsum(equation: str, dtype: jnp.dtype, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Multiplies x by a kernel in x's dtype; the result in `dtype`.

    equation: the kernel's contracted axes are its first; the result's last are its others.
    """
    return _float32_sums(equation, dtype, x, kernel)


def _forward(
    equation: str, dtype: jnp.dtype, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _float32_sums(equation, dtype, x, kernel), (x, kernel)


def _backward(
    equation: str, dtype: jnp.dtype, residuals: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Computes both gradients without transposing any operand.

    The rule of `jnp.einsum` would multiply float32 gradients, and transpose: XLA:CPU transposes a
    kernel that has several contracted axes or several others, which takes longer than the product.
    """
    x, kernel = residuals
    left, right, out = letters(equation)
    gradient = gradient.astype(x.dtype)
    rows = "".join(letter for letter in left if letter in out)
    contracted = "".join(letter for letter in right if letter in left)
    row_shape, contracted_shape = gradient.shape[: len(rows)], kernel.shape[: len(contracted)]
    columns = math.prod(kernel.shape[len(contracted) :])
    flat = gradient.reshape(*row_shape, columns)
    flat_kernel = kernel.reshape(-1, columns)
    dx = _float32_sums(f"{rows}Z,YZ->{rows}Y", x.dtype, flat, flat_kernel)
    dx = jnp.einsum(f"{rows}{contracted}->{left}", dx.reshape(*row_shape, *contracted_shape))
    return dx, _float32_sums(f"{left},{out}->{right}", kernel.dtype, x, gradient)


einsum.defvjp(_forward, _backward)


def _float32_sums(equation: str, dtype: jnp.dtype, x: jax.Array, kernel: jax.Array) -> jax.Array:
    left, _, out = letters(equation)
    rows = [letter for letter in left if letter in out]
    # XLA:CPU multiplies a single row of bfloat16 in four times the time of two rows.
    single = rows and all(x.shape[left.index(row)] == 1 for row in rows)
    two_rows = single and x.dtype == jnp.bfloat16
    if two_rows:
        x = lax.optimization_barrier(jnp.concatenate([x, x], left.index(rows[0])))
    y = jnp.einsum(equation, x, kernel, preferred_element_type=jnp.float32).astype(dtype)
    return lax.slice_in_dim(y, 0, 1, axis=out.index(rows[0])) if two_rows else y


def letters(equation: str) -> tuple[str, str, str]:
    """Splits "left,right->out" into its three parts."""
    sides, _, out = equation.partition("->")
    left, right = sides.split(",")
    return left, right, out
