"""Learning rates by step."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import optax

from experiments.config.extensions import NO_EXTENSIONS, Extensions, join_names
from experiments.config.optimizer import OptimConfig


def make_schedule(
    config: OptimConfig, steps: int, extensions: Extensions = NO_EXTENSIONS
) -> optax.Schedule:
    """Returns steps taken before -> learning rate, as `OptimConfig` describes."""
    schedules = join_names(SCHEDULES, extensions.schedules, "schedule")
    return schedules[config.schedule](config, steps)


def _warmup(config: OptimConfig, steps: int) -> tuple[int, optax.Schedule]:
    """Returns the number of warm-up steps, fewer than all, and the linear rise over them."""
    warmup = min(config.warmup_steps, steps - 1)
    return warmup, optax.linear_schedule(0.0, config.learning_rate, warmup)


def _cosine(config: OptimConfig, steps: int) -> optax.Schedule:
    peak, end = config.learning_rate, config.end_lr_factor * config.learning_rate
    warmup, _ = _warmup(config, steps)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end)


def _constant(config: OptimConfig, steps: int) -> optax.Schedule:
    warmup, rising = _warmup(config, steps)
    return optax.join_schedules([rising, optax.constant_schedule(config.learning_rate)], [warmup])


def _rsqrt(config: OptimConfig, steps: int) -> optax.Schedule:
    warmup, rising = _warmup(config, steps)

    def schedule(step):
        first = max(warmup, 1)
        fallen = config.learning_rate * jnp.sqrt(first / jnp.maximum(step, first))
        left = (steps - step) / config.cooldown_steps if config.cooldown_steps else 1.0
        return jnp.where(step < warmup, rising(step), fallen * jnp.clip(left, 0.0, 1.0))

    return schedule


def _one_cycle(config: OptimConfig, steps: int) -> optax.Schedule:
    """Source: `torch.optim.lr_scheduler.OneCycleLR`, two phases, both along half a cosine."""
    peak = config.learning_rate
    first, last = peak / config.div_factor, peak / config.div_factor / config.final_div_factor
    top = max(config.pct_start * steps - 1, 1e-9)
    fall = max(steps - 1 - top, 1e-9)

    def between(start, end, share):
        return end + (start - end) * (1 + jnp.cos(jnp.pi * jnp.clip(share, 0.0, 1.0))) / 2

    def schedule(step):
        rising = between(first, peak, step / top)
        return jnp.where(step <= top, rising, between(peak, last, (step - top) / fall))

    return schedule


SCHEDULES: dict[str, Callable[[OptimConfig, int], optax.Schedule]] = {
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "rsqrt": _rsqrt,
    "constant": _constant,
}
