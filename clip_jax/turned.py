"""Kernels that lie with their columns before what a product sums over, as a CPU reads them fastest.

XLA lays a kernel that begins with the summed axes in another order first, in each call, which takes
a few rows longer than their product (docs/performance.md, "Drawing"). It is done once here, when a
model is loaded.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from clip_jax.copies import copy_in_order

# Of each kernel that is turned, part of a layer or of the model and name, how many axes its
# product sums over: its first.
SUMMED = {
    ("attention", "qkv_kernel"): 1,
    ("attention", "out_kernel"): 2,
    ("mlp", "in_kernel"): 1,
    ("mlp", "out_kernel"): 1,
    ("head", "kernel"): 1,
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Turned:
    """Stands where a kernel would. values: float[columns..., summed...]. summed: how many of the
    axes are summed over.
    """

    values: np.ndarray | jax.Array
    summed: int = dataclasses.field(metadata={"static": True})

    def astype(self, dtype: Any) -> Turned:
        return Turned(self.values.astype(dtype), self.summed)

    def back(self) -> np.ndarray:
        """The kernel, [summed..., columns...]: on a CPU a view."""
        first = self.values.ndim - self.summed
        values = np.asarray(self.values)
        return values.transpose(*range(first, values.ndim), *range(first))


def turn(kernel: Any, summed: int) -> Turned:
    """A copy in its dtype. kernel: float[summed..., columns...], on the host or a CPU."""
    kernel = np.asarray(kernel)
    flat = kernel.reshape(math.prod(kernel.shape[:summed]), -1)
    values = copy_in_order(flat.T, kernel.dtype)
    values = values.reshape(kernel.shape[summed:] + kernel.shape[:summed])
    return Turned(jax.device_put(values), summed)  # here, where no other kernel waits for it


def turn_kernels(params: Mapping[str, Any]) -> dict[str, Any]:
    """A model's parameters, layers one by one, with the kernels of `SUMMED` turned."""
    made = jax.tree.map(lambda leaf: leaf, dict(params))
    turn_kernels_in_place(made)
    return made


def turn_kernels_in_place(params: dict[str, Any], part: str = "") -> None:
    """Puts each in its kernel's place before the next is made: no two models are in memory."""
    for name, value in params.items():
        if isinstance(value, dict):
            turn_kernels_in_place(value, name)
        elif (part, name) in SUMMED:
            params[name] = turn(value, SUMMED[part, name])


def turn_kernels_back(params: Mapping[str, Any]) -> dict[str, Any]:
    """The same parameters with kernels as the model describes them: of turned ones, views."""
    return jax.tree.map(lambda x: x.back() if is_turned(x) else x, dict(params), is_leaf=is_turned)


def is_turned(leaf: Any) -> bool:
    return isinstance(leaf, Turned)


def kernel_of(
    module: nn.Module, name: str, init: Callable[..., jax.Array], shape: tuple[int, ...]
) -> Any:
    """A module's parameter, or what was put in its place by `turn_kernels`."""
    if module.has_variable("params", name):
        given: Any = module.get_variable("params", name)
        if is_turned(given):
            return given
    return module.param(name, init, shape)


def cut_columns(kernel: Any, columns: slice) -> Any:
    """float[D, V] -> float[D, C]: these of a kernel, which may be turned and then stays so."""
    if is_turned(kernel):
        return Turned(kernel.values[columns], kernel.summed)
    return kernel[:, columns]
