"""Forms of linear maps' gradients that TPU compilers turn into faster programs.

`linear.py` chooses them while a program is traced; gains by the compiler's cycles are in
docs/scaling.md.
"""

from __future__ import annotations

import contextlib
import string

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from clip_jax.platforms import traced_platform

LANES = 128
_TILE_ROWS = 8

# Part of the key of every jitted function, so that each setting is compiled separately.
_forced = jax.make_user_context(None)


def in_use(dtype: jnp.dtype) -> bool:
    """Returns whether activations of this dtype get the forms of this module: bfloat16 on TPUs.

    In float32 their products would be rounded.
    """
    forced: bool | None = _forced.value
    return dtype == jnp.bfloat16 and (traced_platform() == "tpu" if forced is None else forced)


def forms(use: bool | None) -> contextlib.AbstractContextManager[None]:
    """Forces these forms on (True) or off (False) within the context; None: by the platform."""
    context: contextlib.AbstractContextManager[None] = _forced(use)
    return context


def are_narrow_heads(shape: tuple[int, ...]) -> bool:
    """Returns whether the last axis of a result is that of heads narrower than a TPU's lanes.

    Their gradient comes from a kernel of attention, into which the compiler fuses nothing.
    """
    return len(shape) > 1 and shape[-1] % LANES != 0


def sum_rows(x: jax.Array) -> jax.Array:
    """Sums bfloat16[..., F] over its rows by the matrix unit -> float32[F].

    Vector operations take four times as long for it as reading x does.
    """
    # A product with fewer rows of ones is compiled as the sum that it is to replace.
    ones = jnp.ones((_TILE_ROWS, *x.shape[:-1]), x.dtype)
    axes = string.ascii_lowercase[: x.ndim - 1]
    sums: jax.Array = jnp.einsum(
        f"R{axes},{axes}F->RF", ones, x, preferred_element_type=jnp.float32
    )
    return sums[0]


@jax.custom_vjp
def row_major_gradient(matrix: jax.Array) -> jax.Array:
    """Returns a matrix, float[D, F], whose gradient is laid out row by row.

    Heads narrower than the lanes are not the last axis of a parameter in memory. Its gradient would
    follow it, for which the compiler transposes the activations' gradient, many times its size.
    """
    return matrix


def _row_major_forward(matrix: jax.Array) -> tuple[jax.Array, None]:
    return matrix, None


def _row_major_backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (with_layout_constraint(gradient, Layout(major_to_minor=(0, 1))),)


row_major_gradient.defvjp(_row_major_forward, _row_major_backward)
