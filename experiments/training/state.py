"""The state of a training run: what a checkpoint holds, and how a fresh one is made.

params: as the objective has them. opt_state: of the parameters that are trained. step: int32[],
taken so far. rng: key, from which each step's follow. skipped: int32[], steps that were left out
because their gradient was not finite. ema: only with `optim.ema`, averages of the trained ones.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments.config.run import TrainConfig
from experiments.objectives import Objective
from experiments.training import partitioning
from experiments.training.trainable import partition, trainable_mask

State = dict[str, Any]


def state_shardings(
    config: TrainConfig, objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Any:
    """Returns the sharding of each part of the state; under `pmap` all is replicated."""
    abstract = objective.abstract_params
    if config.parallel == "pmap":
        params = jax.tree.map(lambda _: partitioning.replicated(mesh), dict(abstract))
    else:
        params = partitioning.param_shardings(abstract, objective.sharding_rules, mesh)
    chosen = trainable_mask(abstract, config.optim)
    trainable = partition(params, chosen)[0]
    shardings = {
        "params": params,
        "opt_state": partitioning.optimizer_shardings(
            optimizer, partition(abstract, chosen)[0], trainable, mesh
        ),
        **{name: partitioning.replicated(mesh) for name in ("step", "rng", "skipped")},
    }
    return shardings | ({"ema": trainable} if config.optim.ema else {})


def fresh_state(
    config: TrainConfig,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    rng: jax.Array,
) -> State:
    """A state before its first step; traceable."""
    init_rng, train_rng = jax.random.split(rng)
    params = objective.init(init_rng)
    trainable = partition(params, trainable_mask(params, config.optim))[0]
    state = {
        "params": params,
        "opt_state": optimizer.init(trainable),
        "step": jnp.int32(0),
        "rng": train_rng,
        "skipped": jnp.int32(0),
    }
    # A copy: one buffer must not be given away twice.
    return state | ({"ema": jax.tree.map(jnp.copy, trainable)} if config.optim.ema else {})


def initial_state(
    config: TrainConfig, objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[State, Any]:
    """A fresh state, made where it will lie, and the shardings of its parts."""
    shardings = state_shardings(config, objective, optimizer, mesh)
    # It runs once: on a CPU, optimising the random numbers' code takes longer than running it.
    cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if cpu else None
    make_placed = jax.jit(
        lambda rng: fresh_state(config, objective, optimizer, rng),
        out_shardings=shardings,
        compiler_options=options,
    )
    return make_placed(jax.random.key(config.seed)), shardings


def step_of(state: State) -> int:
    """The number of steps that a state itself counts, of which skipped ones are a part."""
    return int(state["step"])


def model_params(state: State) -> Any:
    """The parameters that a model is made of: the averages where there are any."""
    return merge_params(state["params"], state["ema"]) if "ema" in state else state["params"]


def merge_params(params: Any, changed: Any) -> Any:
    """params with the leaves of a tree that has some of its branches."""
    new = dict(params)
    for key, value in changed.items():
        new[key] = merge_params(params[key], value) if isinstance(value, dict) else value
    return new


@jax.jit
def all_finite(params: Any) -> jax.Array:
    """bool[]: whether no element of any leaf is infinite or NaN."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
