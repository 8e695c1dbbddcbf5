"""Products of activations with kernels, such that a CPU multiplies bfloat16 as it lies."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax


def product(equation: str, x: jax.Array, kernel: jax.Array, wide: bool) -> jax.Array:
    """einsum in x's dtype. wide: leave the compiler float32 sums and round them once.

    On a CPU it then multiplies bfloat16 as it lies, here and in the backward pass; else it turns
    both sides into float32 first. Another device keeps float32 sums by itself.
    """
    if not wide:
        return jnp.einsum(equation, x, kernel)
    return _wide(equation, x, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _wide(equation: str, x: jax.Array, kernel: jax.Array) -> jax.Array:
    def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.einsum(equation, x, kernel, preferred_element_type=jnp.float32).astype(x.dtype)

    def doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
        twice = lax.optimization_barrier(jnp.concatenate([x, x], left.index(rows[0])))
        return lax.slice_in_dim(plain(twice, kernel), 0, 1, axis=out.index(rows[0]))

    sides, _, out = equation.partition("->")
    left = sides.partition(",")[0]
    rows = [letter for letter in left if letter in out]
    if not rows or x.dtype != jnp.bfloat16 or any(x.shape[left.index(row)] > 1 for row in rows):
        return plain(x, kernel)
    # XLA's product of one row takes a CPU four times as long as that of two.
    return lax.platform_dependent(x, kernel, cpu=doubled, default=plain)


def _forward(
    equation: str, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _wide(equation, x, kernel), (x, kernel)


def _backward(
    equation: str, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Its own rule, since that of `einsum` would multiply gradients of float32."""
    x, kernel = kept
    sides, _, out = equation.partition("->")
    left, right = sides.split(",")
    return (
        _wide(f"{out},{right}->{left}", gradient, kernel),
        _wide(f"{left},{out}->{right}", x, gradient),
    )


_wide.defvjp(_forward, _backward)
