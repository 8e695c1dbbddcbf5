"""The state of a training run, and the compiled step from one to the next."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments import parallel
from experiments.config import TrainConfig
from experiments.objectives import Objective

State = dict[str, Any]  # params, opt_state, step int32[], rng key


def initial_state(
    config: TrainConfig, objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[State, Any]:
    """A fresh state, made where it will lie, and the shardings of its parts."""
    params = parallel.param_shardings(objective.abstract_params, objective.table, mesh)
    shardings = {
        "params": params,
        "opt_state": parallel.optimizer_shardings(
            optimizer, objective.abstract_params, params, mesh
        ),
        "step": parallel.replicated(mesh),
        "rng": parallel.replicated(mesh),
    }

    def make(rng: jax.Array) -> State:
        init_rng, train_rng = jax.random.split(rng)
        params = objective.init(init_rng)
        step = jnp.int32(0)
        return {
            "params": params, "opt_state": optimizer.init(params), "step": step, "rng": train_rng
        }  # fmt: skip

    # It runs once: on a CPU, optimising the random numbers' code takes longer than running it.
    cpu = mesh.devices.flat[0].platform == "cpu"
    options = {"xla_backend_optimization_level": 0} if cpu else None
    make_placed = jax.jit(make, out_shardings=shardings, compiler_options=options)
    return make_placed(jax.random.key(config.seed)), shardings


def make_train_step(
    objective: Objective, optimizer: optax.GradientTransformation, shardings: Any
) -> Callable[[State, Mapping[str, jax.Array]], tuple[State, dict[str, jax.Array]]]:
    """(state, batch) -> (state, metrics), compiled; the old state's memory is reused."""

    def step(state: State, batch: Mapping[str, jax.Array]) -> tuple[State, dict[str, jax.Array]]:
        rng = jax.random.fold_in(state["rng"], state["step"])
        (loss, metrics), grads = jax.value_and_grad(objective.loss, has_aux=True)(
            state["params"], batch, rng, state["step"]
        )
        updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
        params = objective.project(optax.apply_updates(state["params"], updates))
        metrics = {**metrics, "loss": loss, "grad_norm": optax.tree.norm(grads)}
        new = {**state, "params": params, "opt_state": opt_state, "step": state["step"] + 1}
        return new, metrics

    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


@jax.jit
def all_finite(params: Any) -> jax.Array:
    """bool[]: whether no element of any leaf is infinite or NaN."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]).all()
