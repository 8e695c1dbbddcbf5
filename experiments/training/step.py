"""One step of training: a body that runs whole under `jit` and by device under `pmap`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from clip_jax.fp8 import fp8_products
from clip_jax.fused import shard_over
from clip_jax.per_example_rng import per_example_keys
from clip_jax.sharding import batch_sharding_axes
from experiments.config.run import TrainConfig
from experiments.objectives import Objective
from experiments.objectives.objective import Batch, Metrics, Params, StepContext
from experiments.training.master_weights import (
    bfloat16_copies,
    check_master_weights,
    float32_gradients,
)
from experiments.training.partitioning import (
    BATCH_AXES,
    MESH_AXIS,
    example_indices,
    split_microbatches,
)
from experiments.training.state import State
from experiments.training.trainable import combine, partition, trainable_mask

# In the rows of a batch and in a step's metrics, with several processes alone.
SIGNAL = "signal"

Step = Callable[[State, Batch], tuple[State, Metrics]]


def make_train_step(
    config: TrainConfig,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    axis_name: str | None = None,
) -> Step:
    """(state, rows of a batch) -> (state, metrics), to be compiled.

    axis_name: of the devices that the batch is spread over, under `pmap`; None: the rows are the
    whole batch. Metrics hold "loss", "grad_norm" and "skipped" besides the objective's own, and the
    largest SIGNAL of all rows where these have one, int32[B].
    """
    check_master_weights(config, objective)
    chosen = trainable_mask(objective.abstract_params, config.optim)
    process_rows = config.data.batch_size // jax.process_count()

    def mean(tree: Any) -> Any:
        return tree if axis_name is None else lax.pmean(tree, axis_name)

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        signals = batch.get(SIGNAL)
        batch = {name: each for name, each in batch.items() if name != SIGNAL}
        rows = jax.tree.leaves(batch)[0].shape[0]
        first = 0 if axis_name is None else lax.axis_index(axis_name) * rows
        numbers = example_indices(first + jnp.arange(rows), process_rows, jax.process_count())
        keys = per_example_keys(jax.random.fold_in(state["rng"], state["step"]), numbers)
        now = StepContext(state["step"], keys, mean(objective.batch_stats(batch)))
        trainable, frozen = partition(state["params"], chosen)

        def loss(trainable: Params, batch: Batch, now: StepContext) -> tuple[jax.Array, Metrics]:
            axes = BATCH_AXES if axis_name is None else ()
            with (
                batch_sharding_axes(axes),
                shard_over(axes, MESH_AXIS["heads"] if axes else None),
                fp8_products(config.fp8_products, axis_name),
            ):
                return objective.loss(combine(trainable, frozen), batch, now)

        gradient = jax.value_and_grad(loss, has_aux=True)
        parts = 1 if objective.accumulates else config.grad_accum_steps
        accumulated = _accumulate_gradients(gradient, parts)
        half = config.optim.master_weights
        working = bfloat16_copies(trainable) if half else trainable
        (value, metrics), grads = mean(accumulated(working, batch, now))
        grads = float32_gradients(grads) if half else grads
        grad_norm = optax.tree.norm(grads)
        metrics = {**objective.summarize(metrics), "loss": value, "grad_norm": grad_norm}
        updates, opt_state = optimizer.update(grads, state["opt_state"], trainable)
        new = combine(optax.apply_updates(trainable, updates), frozen)
        after = {**state, "params": objective.post_update(new), "opt_state": opt_state}
        if config.optim.ema:
            after["ema"] = optax.incremental_update(
                partition(after["params"], chosen)[0], state["ema"], 1 - config.optim.ema
            )
        if config.optim.skip_nonfinite:
            good = jnp.isfinite(value) & jnp.isfinite(metrics["grad_norm"])
            for name in {"params", "opt_state", "ema"} & set(after):
                after[name] = jax.tree.map(partial(jnp.where, good), after[name], state[name])
            after["skipped"] = state["skipped"] + ~good
        metrics["skipped"] = after["skipped"].astype(jnp.float32)
        if signals is not None:
            largest = signals.max()
            metrics[SIGNAL] = largest if axis_name is None else lax.pmax(largest, axis_name)
        return {**after, "step": state["step"] + 1}, metrics

    return step


def _accumulate_gradients(gradient: Callable[..., Any], parts: int) -> Callable[..., Any]:
    """The same value and gradient, of so many micro-batches one after the other."""
    if parts == 1:
        return gradient

    def summed(trainable: Params, batch: Batch, now: StepContext) -> Any:
        pieces = split_microbatches((dict(batch), now.keys), parts)

        def of(piece: tuple[Batch, jax.Array]) -> Any:
            return gradient(trainable, piece[0], now._replace(keys=piece[1]))

        def add(total: Any, piece: Any) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of(piece)), None

        like = jax.eval_shape(of, jax.tree.map(lambda x: x[0], pieces))
        # Gradients of bfloat16 copies are summed in float32.
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, jnp.float32 if x.dtype == jnp.bfloat16 else x.dtype), like
        )
        total, _ = lax.scan(add, zeros, pieces)
        return jax.tree.map(lambda x: x / parts, total)

    return summed
