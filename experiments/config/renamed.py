"""Keys of configs that earlier versions named otherwise: saved configs keep their old names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "accumulate": "grad_accum_steps",
    "best_is": "best_mode",
    "init.leave": "init.reinitialize",
    "optim.final": "optim.end_lr_factor",
    "optim.rise": "optim.pct_start",
    "optim.division": "optim.div_factor",
    "optim.final_division": "optim.final_div_factor",
}


# Keys that are gone: forms for CPUs follow from the platform now.
REMOVED = ("compute.wide",)


def current_names(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a flat config with today's keys: {"optim.rise": 0.3} -> {"optim.pct_start": 0.3}."""
    return {RENAMED.get(key, key): value for key, value in flat.items() if key not in REMOVED}
