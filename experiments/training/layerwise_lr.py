"""Rates that differ by layer: decay from the top, and frozen layers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.config.optimizer import OptimConfig
from experiments.training.param_names import STACK, layer_names, path_str

# What comes before the first layer of a tower or decoder.
EMBEDDINGS = re.compile(r".*(embedding|pre_norm)(/.*)?")


def scale_by_layer(updates: Any, config: OptimConfig) -> Any:
    """Updates, each layer's times its share of the learning rate.

    The embeddings are layer 0, the stacked layers 1 to L, what follows them L + 1 with the share 1:
    layer i has layer_decay ** (L + 1 - i) (Bao et al. 2021, BEiT). Frozen layers have 0.
    """
    depths = _depths(updates)

    def scale(path: Sequence[Any], update: jax.Array) -> jax.Array:
        shares = layer_lr_multipliers(path, update, config, depths).astype(update.dtype)
        return update * shares.reshape((-1, *[1] * (update.ndim - 1)) if update.ndim else ())

    return jax.tree_util.tree_map_with_path(scale, updates)


def layer_lr_multipliers(
    path: Sequence[Any], leaf: Any, config: OptimConfig, depths: dict[str, int]
) -> np.ndarray:
    """float64[layers] of a stacked leaf, [1] of any other."""
    name, names = path_str(path), layer_names(path, leaf)
    depth = depths.get(_stem(name), 0)
    if len(names) > 1 or STACK in name.split("/"):
        places = np.arange(1, depth + 1)
    elif EMBEDDINGS.fullmatch(name):
        places = np.zeros(1)
    else:
        places = np.full(1, depth + 1)
    moving = [not any(re.fullmatch(p, n) for p in config.freeze) for n in names]
    return config.layer_decay ** (depth + 1 - places) * np.array(moving)


def _depths(params: Any) -> dict[str, int]:
    """Returns the number of stacked layers by the name of their tower ("visual", or "")."""
    return {
        _stem(path_str(path)): leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if STACK in path_str(path).split("/")
    }


def _stem(name: str) -> str:
    """ "visual" of a name in a tower, "" in a model that is one stack."""
    tower = re.match(r"((base|lora)/)?(visual|text)/", name)
    return tower[3] if tower else ""
