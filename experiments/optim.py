"""Optimiser and schedule of a run, and which parameters decay."""

from __future__ import annotations

from typing import Any

import jax
import optax

from experiments.config import OptimConfig


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Step -> learning rate: linear from 0 to the peak, then half a cosine down."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config.learning_rate,
        warmup_steps=min(config.warmup_steps, steps - 1),
        decay_steps=steps,
        end_value=config.final * config.learning_rate,
    )


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    adamw = optax.adamw(
        make_schedule(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    if not config.clip_norm:
        return adamw
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


def decay_mask(params: Any) -> Any:
    """True where a parameter decays: matrices and tables, no biases, gains or single vectors.

    By name, since stacking gives a layer's bias two axes. Source: open_clip's `params.py`, which
    decays what has at least two axes before stacking.
    """

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        name = path[-1].key
        return not (name.endswith(("bias", "scale")) or name == "class_embedding")

    return jax.tree_util.tree_map_with_path(decays, params)
