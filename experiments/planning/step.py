"""A config's own training step, traced and compiled for devices that need not exist."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh

from clip_jax.errors import InputError
from experiments.config.run import TrainConfig
from experiments.objectives import Objective, clip, make_objective, rudolph, vqgan
from experiments.train import check_mesh
from experiments.training import partitioning
from experiments.training.lora import with_lora
from experiments.training.optimizer import make_optimizer
from experiments.training.state import fresh_state, state_shardings
from experiments.training.step import make_train_step
from rudolph_jax.config import VQGAN_PRESETS
from rudolph_jax.image_tokenizer import PretrainedVqgan
from rudolph_jax.vqgan import abstract_params as abstract_vqgan

BATCH_SHAPES = {
    "clip": clip.batch_shapes,
    "vqgan": vqgan.batch_shapes,
    "rudolph": rudolph.batch_shapes,
}


@dataclasses.dataclass(frozen=True)
class TracedStep:
    """state, batch: what the step takes: shapes with dtypes and shardings. traced: not lowered."""

    mesh: Mesh
    state: Any
    batch: dict[str, jax.ShapeDtypeStruct]
    traced: Any


def trace_step(config: TrainConfig, devices: Sequence[jax.Device]) -> TracedStep:
    """The step of `experiments.train` on these devices; no array is made.

    Raises InputError where training would.
    """
    if config.parallel != "jit":
        raise InputError(f"config.parallel is {config.parallel!r}; only 'jit' can be planned")
    mesh = partitioning.make_mesh(config.mesh, devices)
    check_mesh(config, mesh)
    objective = planned_objective(config, mesh)
    if config.optim.lora.rank:
        objective = with_lora(objective, config.optim.lora)
    optimizer = make_optimizer(config.optim, config.steps, config.extensions)
    shardings = state_shardings(config, objective, optimizer, mesh)
    # Outside of the mesh, whose devices run nothing, not even a constant.
    rng = jax.eval_shape(partial(jax.random.key, config.seed))
    shapes = jax.eval_shape(partial(fresh_state, config, objective, optimizer), rng)
    with partitioning.mesh_context(mesh, config.parallel):
        state = jax.tree.map(_placed, shapes, shardings)
        rows = partitioning.batch_sharding(mesh)
        batch = {key: _placed(leaf, rows) for key, leaf in batch_shapes(config).items()}
        step = jax.jit(
            make_train_step(config, objective, optimizer),
            donate_argnums=0,
            out_shardings=(shardings, None),
        )
        return TracedStep(mesh, state, batch, step.trace(state, batch))


def step_metrics(config: TrainConfig, devices: Sequence[jax.Device]) -> list[str]:
    """Returns the names of the metrics that the step of `experiments.train` gives."""
    return sorted(trace_step(config, devices).traced.out_info[1])


def planned_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    """The config's objective; of an image tokenizer that it trains over, only the shapes."""
    if config.objective != "rudolph":
        return make_objective(config, mesh)
    tokenizer = dataclasses.replace(
        VQGAN_PRESETS["gumbelf8"], codebook_size=config.model.image_vocab_size
    )
    params = abstract_vqgan(tokenizer)
    return rudolph.decoder_objective(config, PretrainedVqgan(tokenizer, params))


def batch_shapes(config: TrainConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a global batch as the loss takes it, RUDOLPH's with their codes."""
    own = {name: one.batch_shapes for name, one in config.extensions.objectives.items()}
    return {**BATCH_SHAPES, **own}[config.objective](config)


def device_bytes(tree: Any) -> int:
    """Returns the bytes of one device's shards of a tree of placed shapes."""
    leaves = jax.tree.leaves(tree)
    return sum(_share(leaf) for leaf in leaves)


def _share(leaf: jax.ShapeDtypeStruct) -> int:
    shape = leaf.sharding.shard_shape(leaf.shape)
    return math.prod(shape) * leaf.dtype.itemsize


def _placed(leaf: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
