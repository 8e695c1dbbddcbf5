"""Which parameters a run trains; gradients and optimiser state are of those alone."""

from __future__ import annotations

from typing import Any

import jax

from experiments.config.optimizer import OptimConfig
from experiments.training.param_names import matching


def trained(params: Any, config: OptimConfig) -> Any:
    """bool for each leaf. A stacked leaf with some of its layers frozen is trained, and
    `rates.layer_rates` holds those still.
    """
    if config.lora.rank:
        base = matching(params["base"], config.lora.train, "optim.lora.train")
        return {
            "base": jax.tree.map(lambda layers: bool(layers.any()), base),
            "lora": jax.tree.map(lambda _: True, params["lora"]),
        }
    frozen = matching(params, config.freeze, "optim.freeze")
    return jax.tree.map(lambda layers: not layers.all(), frozen)


def split(params: Any, chosen: Any) -> tuple[Any, Any]:
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


def merge(one: Any, other: Any) -> Any:
    """The inverse of `split`."""
    merged = dict(one)
    for key, value in other.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged
