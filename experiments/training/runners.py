"""Compiles and feeds a step: `jit` over the mesh, or `pmap` with a whole model a device.

A signal, of a process among several, is shared as one more number of each of its rows (`step.py`).
"""

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
from experiments.training.step import SIGNAL, make_train_step


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
        self.step = self._program = jax.jit(
            make_train_step(config, objective, optimizer),
            donate_argnums=0,
            out_shardings=(shardings, None),
        )

    def compile(self, state: State, batch: Batch) -> None:
        """Compiles what `step` runs with such arguments; runs nothing."""
        self._program.lower(state, batch).compile()

    def shard_batch(self, batch: Mapping[str, np.ndarray], signal: int | None = None) -> Batch:
        """This process's rows, as part of the global arrays that the step takes."""
        placed: Batch = partitioning.put_batch(batch, self._mesh)
        prepared = placed if self._prepare is None else self._prepare(self._params, placed)
        if signal is None:
            return prepared
        return {**prepared, **partitioning.put_batch(_signals(batch, signal), self._mesh)}


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

    def compile(self, state: State, batch: Batch) -> None:
        """Does nothing: `pmap` would compile once more at its first call."""

    def shard_batch(self, batch: Mapping[str, np.ndarray], signal: int | None = None) -> Batch:
        """[B, ...] -> [devices of this process, their rows, ...]"""
        cut = self._cut(batch)
        prepared = cut if self._prepare is None else self._prepare(self._params, cut)
        if signal is None:
            return prepared
        return {**prepared, **self._cut(_signals(batch, signal))}

    def _cut(self, rows: Mapping[str, np.ndarray]) -> Batch:
        return {
            key: value.reshape(self._local, -1, *value.shape[1:]) for key, value in rows.items()
        }


def _signals(batch: Mapping[str, np.ndarray], signal: int) -> dict[str, np.ndarray]:
    """Makes the entry of a batch that shares a signal."""
    return {SIGNAL: np.full(len(next(iter(batch.values()))), signal, np.int32)}


RUNNERS = {"jit": JitRunner, "pmap": PmapRunner}
