"""A model that trains, for evaluations: parameters in the shards that training has them in.

All processes make the same calls. Rows are spread over all devices; each process reads those of its
own devices alone, and results come back to all of them. No parameter is gathered by a host: a
program gathers the layer that it computes, as a step of training does.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from clip_jax import PretrainedClip
from clip_jax.config import Compute
from clip_jax.fused import shard_over
from clip_jax.sharding import batch_sharding_axes
from clip_jax.tokenizer import Tokenizer
from experiments.cli.exit_status import Stopped
from experiments.config.run import MeshConfig
from experiments.objectives.objective import BatchTransform
from experiments.training.partitioning import (
    BATCH_AXES,
    MESH_AXIS,
    batch_sharding,
    batch_shards,
    make_mesh,
    replicated,
)

# Rows that a device takes at once, the last ones filled up with repeats that are dropped again: the
# same for any number of devices, so that a row's result does not depend on it.
DEVICE_ROWS = 32
AHEAD = 2  # batches that are read while the devices work
STOP = "stop"  # the array that tells all processes of a signal to one of them

Arrays = Mapping[str, np.ndarray]
# (params, {name: [B, ...]}) -> a tree of [B, ...]. Hashable: equal ones share a compiled program.
RowFunction = Callable[[Any, Mapping[str, jax.Array]], Any]


def no_signal() -> int:
    return 0


@dataclasses.dataclass(frozen=True)
class ShardedModel:
    """params: as training has them, layers stacked. config: the model's.

    batch_transform: of the objective, None where it has none. stop_signal: the number of a signal
    that this process was sent and that is to end the run, 0 for none.
    """

    params: Any
    config: Any
    compute: Compute
    tokenizer: Tokenizer | None
    mesh: Mesh
    batch_transform: BatchTransform | None = None
    stop_signal: Callable[[], int] = no_signal

    def map_rows(
        self,
        function: RowFunction,
        params: Any,
        count: int,
        read: Callable[[Sequence[int]], Arrays],
        device_rows: int = DEVICE_ROWS,
    ) -> Any:
        """Applies a function to `count` rows, at least one: a tree of numpy arrays [count, ...].

        params: on the mesh. read: places, ascending -> their rows as arrays [places, ...]; called
            for the places of this process's devices alone, with the last place of all for rows
            that fill up a batch.
        Raises Stopped, on all processes after the same batch, when one was sent a signal.
        """
        sharding, size = batch_sharding(self.mesh), device_rows * batch_shards(self.mesh)
        own = np.unique([
            np.arange(size)[index[0]]
            for index in sharding.addressable_devices_indices_map((size,)).values()
        ])  # fmt: skip
        precision = "highest" if self.compute.dtype == "float32" else "default"
        run = _compiled(function, self.mesh)
        pending: deque[Any] = deque()
        found: list[Any] = []

        def take() -> None:
            # On all devices: what is read is of one, while another may still be at work.
            values, stop = jax.block_until_ready(pending.popleft())
            if signal := int(stop):
                raise Stopped(signal)
            found.append(jax.tree.map(np.asarray, values))

        with jax.set_mesh(self.mesh), jax.default_matmul_precision(precision):
            for start in range(0, count, size):
                places = np.minimum(start + own, count - 1)
                distinct = np.unique(places)
                rows = read(distinct.tolist())
                local = {
                    name: np.asarray(each)[np.searchsorted(distinct, places)]
                    for name, each in rows.items()
                }
                local[STOP] = np.full(len(own), self.stop_signal(), np.int32)
                arrays = {name: self._place(each, own, size) for name, each in local.items()}
                pending.append(run(params, arrays))
                if len(pending) > ahead(self.mesh):
                    take()
            while pending:
                take()
        return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *found)

    def replicate(self, params: Any) -> Any:
        """Puts a second network's parameters, the same on all processes, on every device."""
        return jax.device_put(params, replicated(self.mesh))

    def _place(self, local: np.ndarray, own: np.ndarray, size: int) -> jax.Array:
        """Makes the global array [size, ...] of which this process holds the rows `own`."""

        def part(index: tuple[slice, ...]) -> np.ndarray:
            first, end, _ = index[0].indices(size)
            return local[np.searchsorted(own, first) : np.searchsorted(own, end)]

        shape = (size, *local.shape[1:])
        return jax.make_array_from_callback(shape, batch_sharding(self.mesh), part)


def ahead(mesh: Mesh) -> int:
    """Returns how many batches are read while the devices work.

    None on CPUs: two programs at once, each of whose devices waits for the others in a thread of
    one pool, can leave no thread for the one that is waited for.
    """
    return 0 if mesh.devices.flat[0].platform == "cpu" else AHEAD


@lru_cache(maxsize=32)
def _compiled(function: RowFunction, mesh: Mesh) -> Callable[[Any, Any], Any]:
    """Compiles (params, rows) -> (function's result, the largest of STOP), both on every device."""

    def run(params: Any, rows: Mapping[str, jax.Array]) -> Any:
        given = {name: each for name, each in rows.items() if name != STOP}
        with batch_sharding_axes(BATCH_AXES), shard_over(BATCH_AXES, MESH_AXIS["heads"]):
            return function(params, given), rows[STOP].max()

    return jax.jit(run, out_shardings=replicated(mesh))


def as_sharded(model: ShardedModel | PretrainedClip) -> ShardedModel:
    """Returns the model, a loaded one as one of a single device of this process."""
    if isinstance(model, ShardedModel):
        return model
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    tokenizer: Any = model.processor.tokenizer
    return ShardedModel(model.params, model.config, model.compute, tokenizer, mesh)
