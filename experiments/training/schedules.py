"""Learning rates by step."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from experiments.config.optimizer import OptimConfig


def make_schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Steps taken before -> learning rate, as `OptimConfig` says."""
    if config.schedule == "one_cycle":
        return _one_cycle(config, steps)
    peak, warmup = config.learning_rate, min(config.warmup_steps, steps - 1)
    if config.schedule == "cosine":
        end = config.end_lr_factor * peak
        return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end)
    rising = optax.linear_schedule(0.0, peak, warmup)
    if config.schedule == "constant":
        return optax.join_schedules([rising, optax.constant_schedule(peak)], [warmup])

    def rsqrt(step):
        first = max(warmup, 1)
        fallen = peak * jnp.sqrt(first / jnp.maximum(step, first))
        left = (steps - step) / config.cooldown_steps if config.cooldown_steps else 1.0
        return jnp.where(step < warmup, rising(step), fallen * jnp.clip(left, 0.0, 1.0))

    return rsqrt


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
