"""Joins the devices of several processes before anything long is compiled.

XLA connects a group of devices at the first program that adds or gathers over it. Gloo, which
joins CPUs, gives up where another process comes to that program 30 s later, as it does where it
compiles for longer; between devices that are connected already one was seen to wait 400 s. So small
programs connect the groups that a run needs, all processes at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.distributed.processes import Processes

Axes = tuple[str, ...]


def connect(mesh: Mesh, processes: Processes) -> None:
    """Connects the groups of devices along all axes of `mesh`, and the processes with each other.

    Nothing is done with one process, and on other devices than CPUs: TPUs have no connections to
    make, and each group of GPUs takes memory.
    """
    if processes.count == 1 or mesh.devices.flat[0].platform != "cpu":
        return
    devices = np.array(jax.devices()).reshape(processes.count, -1)
    # As `jax.experimental.multihost_utils` lays the devices of its own programs.
    by_process = Mesh(devices, ("processes", "local_devices"))
    sums = [_compiled_sums(each, groups(each)) for each in (mesh, by_process)]
    processes.barrier("connect")
    for run, ones in sums:
        jax.block_until_ready(run(ones))


def groups(mesh: Mesh) -> list[Axes]:
    """Returns the sets of axes, in the mesh's order, along which there are several processes."""
    return [axes for axes in _subsets(mesh) if _spans_processes(mesh, axes)]


def _subsets(mesh: Mesh) -> Iterator[Axes]:
    """Yields all sets of axes longer than 1; an axis of 1 changes no group."""
    long = [axis for axis in mesh.axis_names if mesh.shape[axis] > 1]
    for size in range(1, len(long) + 1):
        yield from itertools.combinations(long, size)


def _spans_processes(mesh: Mesh, axes: Axes) -> bool:
    numbers = np.vectorize(lambda device: device.process_index)(mesh.devices)
    places = [mesh.axis_names.index(axis) for axis in axes]
    lines = np.moveaxis(numbers, places, range(len(places)))
    lines = lines.reshape(math.prod(lines.shape[: len(places)]), -1)
    return bool((lines != lines[:1]).any())


def _compiled_sums(mesh: Mesh, groups: list[Axes]) -> tuple[jax.stages.Compiled, jax.Array]:
    """Compiles a sum over each group; returns it with its argument, a one of each device."""
    everywhere = PartitionSpec(mesh.axis_names)

    def sums(ones: jax.Array) -> list[jax.Array]:
        return [lax.psum(ones, axes) for axes in groups]

    ones = jax.make_array_from_callback(
        (mesh.size,),
        NamedSharding(mesh, everywhere),
        lambda index: np.ones(len(range(*index[0].indices(mesh.size))), np.float32),
    )
    # The outputs differ by device only where a group is not all of them; none is looked at.
    mapped = jax.shard_map(
        sums, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
    )
    return jax.jit(mapped).lower(ones).compile(), ones
