"""Computes a step with bfloat16 copies of the parameters, which stay float32 (master weights).

The copies are made once a step, where the parameters are sharded: what devices send to each other
and what the backward pass sums over layers is half as large. Small vectors (biases, gains) are
used as they are. Source: Micikevicius et al. 2018, section 3.1.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from clip_jax.errors import InputError
from experiments.config.run import TrainConfig
from experiments.objectives import Objective
from experiments.training.optimizer import decay_mask


def check_master_weights(config: TrainConfig, objective: Objective) -> None:
    """Raises InputError where gradients would be summed in bfloat16, or products are not in it."""
    if not config.optim.master_weights:
        return
    if config.compute.dtype != "bfloat16":
        raise InputError(
            f"config.optim.master_weights is on with config.compute.dtype {config.compute.dtype!r};"
            " it needs 'bfloat16'"
        )
    if objective.accumulates and config.grad_accum_steps > 1:
        raise InputError(
            f"config.optim.master_weights is on with config.grad_accum_steps"
            f" {config.grad_accum_steps}: objective {config.objective!r} would sum the gradients of"
            " micro-batches in bfloat16; turn one of the two off"
        )


def bfloat16_copies(masters: Any) -> Any:
    """Returns the tree with matrices and tables, float32[...] -> bfloat16[...]."""

    def copy(master: jax.Array, is_matrix: bool) -> jax.Array:
        return master.astype(jnp.bfloat16) if is_matrix else master

    return jax.tree.map(copy, masters, decay_mask(masters))


def float32_gradients(gradients: Any) -> Any:
    """Returns gradients of the copies in the masters' float32."""
    return jax.tree.map(lambda gradient: gradient.astype(jnp.float32), gradients)
