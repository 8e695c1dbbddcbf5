"""Weights of eight bits: a quarter of float32's memory, for what a device has to read each step.

# D width, H heads, K head size, F width of the MLP

Each output of a kernel has a scale of its own, the largest of its weights by magnitude over 127;
weights are rounded to the nearest multiple of it. Tables, norms and the head, where rounding shows
most, stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.layers import CONTRACTED_AXES, MATMUL_MODULES

LARGEST = 127
# (part of a layer, kernel) -> the axes that its product contracts.
CONTRACTED = {
    kernel: tuple(range(count))
    for kernel, count in CONTRACTED_AXES.items()
    if kernel[0] in MATMUL_MODULES
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8:
    """Stands where a kernel would. values: int8, of the kernel's shape. scale: float32, 1 where the
    product sums.
    """

    values: np.ndarray | jax.Array
    scale: np.ndarray | jax.Array

    def astype(self, dtype: Any) -> jax.Array:
        """The kernel. The compiler makes it part of the product that reads it, where it can."""
        return jnp.asarray(self.values * self.scale, dtype)


def quantize(kernel: np.ndarray, axes: tuple[int, ...]) -> Int8:
    """axes: over which the product sums."""
    kernel = np.asarray(kernel, np.float32)
    largest = np.abs(kernel).max(axis=axes, keepdims=True)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return Int8(np.rint(kernel / scale).astype(np.int8), scale)


def quantize_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """A RUDOLPH's parameters, layers one by one, with the layers' kernels as `Int8`."""
    layers = {}
    for number, layer in params["layers"].items():
        parts = {name: dict(part) for name, part in layer.items()}
        for (part, name), axes in CONTRACTED.items():
            parts[part][name] = quantize(parts[part][name], axes)
        layers[number] = parts
    return {**params, "layers": layers}


def is_int8(leaf: Any) -> bool:
    return isinstance(leaf, Int8)
