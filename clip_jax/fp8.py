"""Products of 8-bit floats in linear maps: values rounded to e4m3, gradients to e5m2.

Each tensor has one scale, from its own largest value, so that no state passes from step to step
and checkpoints stay as they are. Rounding is written as flax writes it, quantised and at once
dequantised: XLA on GPUs with 8-bit units (compute capability 8.9 or newer) puts the 8-bit operands
into the product; elsewhere products are of the rounded values, and gain nothing.
"""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax.linen import fp8_ops
from jax import lax

VALUES, GRADIENTS = jnp.float8_e4m3fn, jnp.float8_e5m2

# (whether linear maps round, `pmap`'s axis of devices); part of the key of every jitted function.
_products = jax.make_user_context((False, None))


def fp8_products(on: bool, axis_name: str | None = None) -> contextlib.AbstractContextManager[None]:
    """Rounds the products of linear maps that are traced in the context.

    axis_name: of the devices that rows are spread over under `pmap`, so that a tensor's largest
    value is that of all of them, as it is on a mesh.
    """
    context: contextlib.AbstractContextManager[None] = _products((on, axis_name))
    return context


def round_operands(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rounds what a linear map multiplies, within `fp8_products`."""
    on, axis_name = _products.value
    # Devices have the same kernel, and each its own rows.
    return (_round_values(x, axis_name), _round_values(kernel, None)) if on else (x, kernel)


def round_gradient(y: jax.Array) -> jax.Array:
    """Returns a product as it is; within `fp8_products` its gradient is rounded."""
    on, axis_name = _products.value
    return _round_gradient(y, axis_name) if on else y


def _rounded(x: jax.Array, dtype: Any, axis_name: str | None) -> jax.Array:
    """Rounds to the 8-bit dtype, the largest value to its largest; a tensor with inf or nan to nan.

    Without the last, inf would be clipped, and a run that diverged would look sound.
    """
    largest = jnp.max(jnp.abs(x)).astype(jnp.float32)
    largest = largest if axis_name is None else lax.pmax(largest, axis_name)
    limit = fp8_ops.get_fp8_max(dtype, jnp.float32)
    scale = fp8_ops.compute_scale(largest, jnp.float32(1), limit)
    # A subnormal scale may be flushed to 0, and 0 / 0 is nan.
    scale = jnp.maximum(scale, jnp.finfo(jnp.float32).tiny)
    scale = jnp.where(jnp.isfinite(largest), scale, jnp.nan)
    return fp8_ops.qdq(x, dtype, scale, x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _round_values(x: jax.Array, axis_name: str | None) -> jax.Array:
    return _rounded(x, VALUES, axis_name)


_round_values.defvjp(
    lambda x, axis_name: (_round_values(x, axis_name), None),
    lambda axis_name, _, gradient: (gradient,),  # as if nothing were rounded
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _round_gradient(y: jax.Array, axis_name: str | None) -> jax.Array:
    return y


_round_gradient.defvjp(
    lambda y, axis_name: (y, None),
    lambda axis_name, _, gradient: (_rounded(gradient, GRADIENTS, axis_name),),
)
