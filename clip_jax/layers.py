"""The two layouts of a transformer's layers in a parameter tree: stacked, and one by one.

Training stacks them: `{'layers': {'mlp': {'in_kernel': [L, D, F]}}}`, which one scan runs.
A model folder keeps them one by one: `{'layers': {'0': {'mlp': {'in_kernel': [D, F]}}, ...}}`,
so that files stream and names stay greppable.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

LAYERS = "layers"
MATMUL_MODULES = ("attention", "mlp")  # of a layer: parameters are cast to `Compute.dtype`
# (part of a layer or model, kernel) -> how many axes its product contracts: the kernel's first.
CONTRACTED_AXES = {
    ("attention", "qkv_kernel"): 1,
    ("attention", "out_kernel"): 2,
    ("mlp", "in_kernel"): 1,
    ("mlp", "out_kernel"): 1,
    ("head", "kernel"): 1,
}


def stack_layers(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Stacks one-by-one layers, at any depth; numpy leaves, leading axis L."""
    return _map(tree, _stack)


def unstack_layers(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Splits stacked layers, at any depth; leaves may be ShapeDtypeStructs."""
    return _map(tree, _unstack)


def is_stacked(tree: Mapping[str, Any]) -> bool:
    """Returns whether a tree's layers are stacked; True for a tree without layers."""
    for key, value in tree.items():
        if key == LAYERS:
            return "0" not in value
        if isinstance(value, Mapping) and not is_stacked(value):
            return False
    return True


def _map(tree: Mapping[str, Any], change: Any) -> dict[str, Any]:
    return {
        key: (change(value) if key == LAYERS else _map(value, change))
        if isinstance(value, Mapping)
        else value
        for key, value in tree.items()
    }


def _stack(layers: Mapping[str, Any]) -> dict[str, Any]:
    order = [str(i) for i in range(len(layers))]
    if set(order) != set(layers):
        raise ValueError(f"layers are named {sorted(layers)}; expected 0 to {len(layers) - 1}")
    return jax.tree.map(lambda *leaves: np.stack(leaves), *(layers[i] for i in order))


def _unstack(stacked: Mapping[str, Any]) -> dict[str, Any]:
    depths = {leaf.shape[0] for leaf in jax.tree.leaves(stacked)}
    if len(depths) != 1:
        raise ValueError(f"stacked layers have leading axes {sorted(depths)}; expected one length")
    return {str(i): jax.tree.map(partial(_row, i), stacked) for i in range(depths.pop())}


def _row(i: int, leaf: Any) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    return leaf[i]
