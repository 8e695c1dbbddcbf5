"""Objectives: a model with its loss, as the train loop needs them, one file each."""

from __future__ import annotations

from collections.abc import Callable

from jax.sharding import Mesh

from experiments.config.run import TrainConfig
from experiments.objectives.clip import clip_objective
from experiments.objectives.objective import Objective
from experiments.objectives.rudolph import rudolph_objective
from experiments.objectives.vqgan import vqgan_objective

OBJECTIVES: dict[str, Callable[[TrainConfig, Mesh], Objective]] = {
    "clip": clip_objective,
    "vqgan": vqgan_objective,
    "rudolph": rudolph_objective,
}


def make_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    """The objective that a config names, which `experiments.config.run.check` has looked at."""
    own = {name: one.make for name, one in config.extensions.objectives.items()}
    return {**OBJECTIVES, **own}[config.objective](config, mesh)
