"""Compiles and feeds a step: `jit` over the mesh, or `pmap` with a whole model a device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from experiments.config.run import TrainConfig
from experiments.objectives import Objective
from experiments.objectives.objective import Batch, Metrics
from experiments.training import partitioning
from experiments.training.state import State
from experiments.training.step import make_train_step


class JitRunner:
    """`runner.step(state, runner.shard_batch(batch))`; the old state's memory is reused."""

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        shardings: Any,
    ) -> None:
        self._mesh = mesh
        self._prepare = None
        if objective.batch_transform is not None:
            self._prepare = jax.jit(
                objective.batch_transform.apply, out_shardings=partitioning.batch_sharding(mesh)
            )
            self._params = jax.device_put(
                objective.batch_transform.params, partitioning.replicated(mesh)
            )
        self.step = jax.jit(
            make_train_step(config, objective, optimizer),
            donate_argnums=0,
            out_shardings=(shardings, None),
        )

    def shard_batch(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """This process's rows, as part of the global arrays that the loss takes."""
        placed = partitioning.put_batch(batch, self._mesh)
        return placed if self._prepare is None else self._prepare(self._params, placed)


class PmapRunner:
    """The same; every device holds the whole state and its own rows."""

    def __init__(
        self,
        config: TrainConfig,
        objective: Objective,
        optimizer: optax.GradientTransformation,
        mesh: Mesh,
        shardings: Any,
    ) -> None:
        devices = list(mesh.devices.flat)
        self._local = len([d for d in devices if d.process_index == jax.process_index()])
        self._prepare = None
        if objective.batch_transform is not None:
            self._prepare = jax.pmap(
                objective.batch_transform.apply,
                partitioning.PMAP_AXIS,
                in_axes=(None, 0),
                devices=devices,
            )
            self._params = jax.device_put(
                objective.batch_transform.params, partitioning.replicated(mesh)
            )
        self._step = jax.pmap(
            make_train_step(config, objective, optimizer, partitioning.PMAP_AXIS),
            partitioning.PMAP_AXIS,
            in_axes=(None, 0),
            out_axes=None,
            devices=devices,
            donate_argnums=0,
        )

    def step(self, state: State, batch: Batch) -> tuple[State, Metrics]:
        return self._step(state, batch)

    def shard_batch(self, batch: Mapping[str, np.ndarray]) -> Batch:
        """[B, ...] -> [devices of this process, their rows, ...]"""
        cut = {
            key: value.reshape(self._local, -1, *value.shape[1:]) for key, value in batch.items()
        }
        return cut if self._prepare is None else self._prepare(self._params, cut)


RUNNERS = {"jit": JitRunner, "pmap": PmapRunner}
