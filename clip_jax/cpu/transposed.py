"""Kernels stored transposed, [out..., in...].

XLA:CPU repacks a right operand on every call; for up to `SMALL_M` rows that costs more than the
product (docs/performance_notes.md, "Drawing"). A left operand stored in the order of its axes
is read as it is. Kernels are transposed once, when a model is loaded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Layout, with_layout_constraint

from clip_jax.contiguous import copy_contiguous
from clip_jax.cpu.einsum import letters
from clip_jax.layers import CONTRACTED_AXES

SMALL_M = 32  # up to so many rows (M of a matrix product) the kernel is the left operand


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TransposedKernel:
    """Replaces a kernel among a model's parameters.

    values: float[out..., in...].
    num_contracted: how many axes `in` has.
    """

    values: np.ndarray | jax.Array
    num_contracted: int = dataclasses.field(metadata={"static": True})

    def astype(self, dtype: Any) -> TransposedKernel:
        return TransposedKernel(self.values.astype(dtype), self.num_contracted)

    def slice_columns(self, columns: slice) -> TransposedKernel:
        """Slices the outputs of a kernel that has one axis of them."""
        return TransposedKernel(self.values[columns], self.num_contracted)

    def to_kernel(self) -> np.ndarray:
        """Returns the kernel, [in..., out...]: on a CPU a view."""
        first = self.values.ndim - self.num_contracted
        values = np.asarray(self.values)
        return values.transpose(*range(first, values.ndim), *range(first))


def is_transposed(leaf: Any) -> bool:
    return isinstance(leaf, TransposedKernel)


def transpose(kernel: Any, num_contracted: int) -> TransposedKernel:
    """Copies a kernel, float[in..., out...] on the host or a CPU, in its dtype."""
    kernel = np.asarray(kernel)
    flat = kernel.reshape(math.prod(kernel.shape[:num_contracted]), -1)
    values = copy_contiguous(flat.T, kernel.dtype)
    values = values.reshape(kernel.shape[num_contracted:] + kernel.shape[:num_contracted])
    return TransposedKernel(jax.device_put(values), num_contracted)  # before the next one is copied


def transpose_kernels(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model's parameters, layers one by one, with the kernels of CONTRACTED_AXES."""
    made = jax.tree.map(lambda leaf: leaf, dict(params))
    transpose_kernels_in_place(made)
    return made


def transpose_kernels_in_place(params: dict[str, Any], part: str = "") -> None:
    """Replaces each kernel before the next is copied: no second model is in memory."""
    for name, value in params.items():
        if isinstance(value, dict):
            transpose_kernels_in_place(value, name)
        elif (part, name) in CONTRACTED_AXES:
            params[name] = transpose(value, CONTRACTED_AXES[part, name])


def untranspose_kernels(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters as the model describes them, with views of transposed kernels."""
    return jax.tree.map(
        lambda x: x.to_kernel() if is_transposed(x) else x, dict(params), is_leaf=is_transposed
    )


def einsum(equation: str, dtype: jnp.dtype, x: jax.Array, kernel: TransposedKernel) -> jax.Array:
    """Multiplies x by the kernel as one product of [R, S] and [C, S]; the sums are float32.

    equation: of the kernel as the model describes it.
    """
    left, right, out = letters(equation)
    contracted, columns = right[: kernel.num_contracted], right[kernel.num_contracted :]
    rows = out[: len(out) - len(columns)]
    x = jnp.einsum(f"{left}->{rows}{contracted}", x)
    shape = x.shape[: len(rows)] + kernel.values.shape[: len(columns)]
    x = x.reshape(math.prod(x.shape[: len(rows)]), -1)
    values = jnp.reshape(kernel.values, (-1, x.shape[1]))
    if len(x) <= SMALL_M:
        y = _small_m(x, values)
    else:
        y = jnp.einsum("RS,CS->RC", x, values, preferred_element_type=jnp.float32)
    return y.astype(dtype).reshape(shape)


def _small_m(x: jax.Array, values: jax.Array) -> jax.Array:
    """Multiplies float[R, S] by float[C, S] transposed, R at most SMALL_M, to float32[R, C]."""
    # XLA:CPU multiplies a single row of bfloat16 in four times the time of two rows.
    two_rows = len(x) == 1 and x.dtype == jnp.bfloat16
    x = jnp.concatenate([x, x]) if two_rows else x
    # Unless both have the order of their axes, the compiler swaps the operands again.
    x = with_layout_constraint(x, Layout((0, 1)))
    y = jnp.einsum("CS,RS->CR", values, x, preferred_element_type=jnp.float32)
    y = with_layout_constraint(y, Layout((0, 1))).T
    return y[:1] if two_rows else y
