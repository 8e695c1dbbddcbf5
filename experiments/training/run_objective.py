"""The objective of a run: the model's, with what its config adds for fine-tuning."""

from __future__ import annotations

from jax.sharding import Mesh

from experiments.config.run import TrainConfig
from experiments.objectives import make_objective
from experiments.objectives.objective import Objective
from experiments.training.lora import with_lora
from experiments.training.warm_start import with_initial_weights


def make_run_objective(config: TrainConfig, mesh: Mesh) -> Objective:
    """Returns the objective with low-rank updates and averaged weights where the config has them.

    Averages are of merged parameters: with low-rank updates alone they scale the updates.
    """
    objective = with_initial_weights(make_objective(config, mesh), config)
    return with_lora(objective, config.optim.lora) if config.optim.lora.rank else objective
