"""The device mesh, and where parameters, optimiser state and batches lie on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clip_jax.errors import InputError
from experiments.config.run import MeshConfig

AXES = ("data", "fsdp", "tensor")
# A batch is split over every device that holds no other share of the same sums.
BATCH_AXES = ("data", "fsdp")
PMAP_AXIS = "data"
MESH_AXIS = {"layers": None, "embed": "fsdp", "heads": "tensor", "mlp": "tensor", "vocab": "tensor"}

Table = Sequence[tuple[str, tuple[str | None, ...]]]


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh of a config; sizes that do not multiply to the devices raise InputError."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = [config.data, config.fsdp, config.tensor]
    free = [i for i, size in enumerate(sizes) if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise InputError(f"config.mesh is {sizes}; expected positive sizes, at most one of them -1")
    if free:
        known = int(np.prod([size for size in sizes if size != -1]))
        sizes[free[0]] = max(len(devices) // known, 1)
    if int(np.prod(sizes)) != len(devices):
        raise InputError(
            f"config.mesh {dict(zip(AXES, sizes, strict=True))} needs {int(np.prod(sizes))} "
            f"devices; found {len(devices)}"
        )
    # A slice's torus has sides of its own, such as 4x4x4, which 8 by fsdp must cut across.
    placed = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return Mesh(placed, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_context(mesh: Mesh, parallel: str) -> contextlib.AbstractContextManager[Any]:
    """Sets the mesh in which a step is compiled and run; `pmap` has its own."""
    return contextlib.nullcontext() if parallel == "pmap" else jax.set_mesh(mesh)


def param_shardings(params: Mapping[str, Any], table: Table, mesh: Mesh) -> Any:
    """A NamedSharding for each leaf of `params` (arrays or their shapes).

    A parameter that no row or several rows name raises ValueError: the table is at fault. A
    dimension that its mesh axis does not divide raises InputError.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        name = "/".join(key.key for key in path)
        rows = [axes for pattern, axes in table if re.fullmatch(pattern, name)]
        if len(rows) != 1 or len(rows[0]) != len(leaf.shape):
            raise ValueError(
                f"sharding table: {len(rows)} rows for {name}{list(leaf.shape)}: {rows}"
            )
        spec = [MESH_AXIS[axis] if axis else None for axis in rows[0]]
        for size, axis in zip(leaf.shape, spec, strict=True):
            if axis and size % mesh.shape[axis]:
                raise InputError(
                    f"parameter {name}{list(leaf.shape)}: {size} is not divisible by config.mesh."
                    f"{axis} ({mesh.shape[axis]}); choose a size of that axis that divides it"
                )
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(place, dict(params))


def optimizer_shardings(
    optimizer: optax.GradientTransformation, params: Any, shardings: Any, mesh: Mesh
) -> Any:
    """Shardings of `optimizer.init(params)`: moments lie as their parameters, the rest
    everywhere.

    params: shapes and dtypes; shardings: theirs, from `param_shardings`.
    """
    state = jax.eval_shape(optimizer.init, params)
    return optax.tree_map_params(
        optimizer,
        # Factored moments, vectors of a matrix, are small and lie everywhere.
        lambda leaf, param, sharding: (
            sharding if leaf.shape == param.shape else replicated(mesh)
        ),
        state,
        params,
        shardings,
        transform_non_params=lambda _: replicated(mesh),
    )


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_shards(mesh: Mesh) -> int:
    """Into how many parts a batch is cut."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def split_microbatches(rows: Any, parts: int) -> Any:
    """[B, ...] -> [parts, B / parts, ...] for each leaf: part m holds rows m, m + parts, ...

    So each device cuts the rows that it holds, and none travels.
    """

    def cut(x: jax.Array) -> jax.Array:
        return x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, rows)


def example_indices(places: jax.Array, rows: int, processes: int) -> jax.Array:
    """int32[B]: index in the batch's order of the example at each place of its global array.

    rows: of a process. Process p reads examples p, p + processes, ... (`data/stream.py`), and its
    rows lie together.
    """
    return places % rows * processes + places // rows


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This process's rows of a batch, as part of the global arrays."""
    sharding = batch_sharding(mesh)
    return {
        key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()
    }
