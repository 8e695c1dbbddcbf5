"""Selects the parameters that a run trains; only these have gradients and optimiser state."""

from __future__ import annotations

from typing import Any

import jax

from experiments.config.optimizer import OptimConfig
from experiments.training.param_names import match_patterns


def trainable_mask(params: Any, config: OptimConfig) -> Any:
    """bool for each leaf. A stacked leaf with some of its layers frozen is trained, and
    `layerwise_lr.scale_by_layer` has 0 for those.
    """
    if config.lora.rank:
        base = match_patterns(params["base"], config.lora.train, "optim.lora.train")
        return {
            "base": jax.tree.map(lambda layers: bool(layers.any()), base),
            "lora": jax.tree.map(lambda _: True, params["lora"]),
        }
    frozen = match_patterns(params, config.freeze, "optim.freeze")
    return jax.tree.map(lambda layers: not layers.all(), frozen)


def partition(params: Any, chosen: Any) -> tuple[Any, Any]:
    """(the leaves that are chosen, the others), as trees without the branches they do not use."""
    return _take(params, chosen, True), _take(params, chosen, False)


def _take(params: Any, chosen: Any, wanted: bool) -> Any:
    taken = {}
    for key, value in params.items():
        if not isinstance(value, dict):
            if chosen[key] == wanted:
                taken[key] = value
        elif branch := _take(value, chosen[key], wanted):
            taken[key] = branch
    return taken


def combine(one: Any, other: Any) -> Any:
    """The inverse of `partition`."""
    merged = dict(one)
    for key, value in other.items():
        merged[key] = combine(merged[key], value) if key in merged else value
    return merged
