"""Builds the optimiser of a run, and selects the parameters that decay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

from experiments.config.extensions import NO_EXTENSIONS, Extensions, join_names
from experiments.config.optimizer import OptimConfig
from experiments.training.layerwise_lr import scale_by_layer
from experiments.training.param_names import path_str
from experiments.training.schedules import make_schedule


def make_optimizer(
    config: OptimConfig, steps: int, extensions: Extensions = NO_EXTENSIONS
) -> optax.GradientTransformation:
    """Returns the transformation from gradients to updates of the trained parameters."""
    optimizers = join_names(BASE_OPTIMIZERS, extensions.optimizers, "optimizer")
    parts = []
    if config.clip_norm:
        parts.append(optax.clip_by_global_norm(config.clip_norm))
    parts += [
        optimizers[config.optimizer](config),
        optax.add_decayed_weights(config.weight_decay, decay_mask),
        optax.scale_by_learning_rate(make_schedule(config, steps, extensions)),
    ]
    if config.layer_decay < 1 or config.freeze:
        parts.append(optax.stateless(lambda updates, _: scale_by_layer(updates, config)))
    return optax.chain(*parts)


def _adam(config: OptimConfig) -> optax.GradientTransformation:
    dtype = config.moment_dtype
    return optax.scale_by_adam(config.beta1, config.beta2, config.epsilon, mu_dtype=dtype)


def _adafactor(config: OptimConfig) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0))


def _lion(config: OptimConfig) -> optax.GradientTransformation:
    return optax.scale_by_lion(config.beta1, config.beta2, mu_dtype=config.moment_dtype)


# The direction of an update; weight decay and learning rate follow in `make_optimizer`.
BASE_OPTIMIZERS: dict[str, Callable[[OptimConfig], optax.GradientTransformation]] = {
    "adamw": _adam,
    "adafactor": _adafactor,
    "lion": _lion,
}


def decay_mask(params: Any) -> Any:
    """True where a parameter decays: matrices and tables, no biases, gains or single vectors.

    By name, since stacking gives a layer's bias two axes. Source: open_clip's `params.py`, which
    decays what has at least two axes before stacking.
    """

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        return not path_str(path).endswith(("bias", "scale", "class_embedding"))

    return jax.tree_util.tree_map_with_path(decays, params)
