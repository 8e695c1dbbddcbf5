"""Quantization of kernels to int8: a quarter of float32's memory, which each step has to read.

# D width, H heads, K head size, F width of the MLP

Each output channel of a kernel has a scale, the largest magnitude of its weights over 127; weights
are rounded to the nearest multiple of it. Tables, norms and the head, where rounding shows
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

QMAX = 127
# (module of a layer, kernel) -> the axes that its product contracts.
CONTRACTED = {
    kernel: tuple(range(count))
    for kernel, count in CONTRACTED_AXES.items()
    if kernel[0] in MATMUL_MODULES
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class QuantizedKernel:
    """Takes a kernel's place among the parameters.

    values: int8, of the kernel's shape.
    scale: float32, of size 1 along the contracted axes.
    """

    values: np.ndarray | jax.Array
    scale: np.ndarray | jax.Array

    def astype(self, dtype: Any) -> jax.Array:
        """Dequantizes the kernel; the compiler fuses this into the product where it can."""
        return jnp.asarray(self.values * self.scale, dtype)


def quantize(kernel: np.ndarray, axes: tuple[int, ...]) -> QuantizedKernel:
    """Quantizes a kernel. axes: those that its product contracts."""
    kernel = np.asarray(kernel, np.float32)
    largest = np.abs(kernel).max(axis=axes, keepdims=True)
    scale = np.where(largest > 0, largest / QMAX, 1).astype(np.float32)
    return QuantizedKernel(np.rint(kernel / scale).astype(np.int8), scale)


def quantize_layers(params: Mapping[str, Any]) -> dict[str, Any]:
    """Quantizes the layers' kernels of a RUDOLPH's unstacked parameters."""
    layers = {}
    for index, layer in params["layers"].items():
        parts = {name: dict(part) for name, part in layer.items()}
        for (part, name), axes in CONTRACTED.items():
            parts[part][name] = quantize(parts[part][name], axes)
        layers[index] = parts
    return {**params, "layers": layers}


def is_int8(leaf: Any) -> bool:
    return isinstance(leaf, QuantizedKernel)
