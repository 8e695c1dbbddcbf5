"""Orbax checkpoints of a tree of arrays, written and read a few arrays at a time.

Orbax alone processes all arrays of a tree at once, which takes two or three times its size. A
checkpoint written here is an ordinary one: any Orbax restores it, and older ones are read here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
from absl import logging
from orbax.checkpoint import type_handlers

from clip_jax.digests import ArrayDigest, digest_array, flatten
from clip_jax.paths import absolute

# Written or read together: little compared to a model, but small models at once, since each batch
# adds some 20 kB of directory to the checkpoint.
MAX_BYTES_IN_FLIGHT = 64 << 20
DIGESTED = "digests"  # custom metadata of a checkpoint

Result = TypeVar("Result")


def save(path: Path, tree: Mapping[str, Any]) -> dict[str, ArrayDigest]:
    """Writes nested dicts of arrays, or of whatever has shape, dtype and `__array__`.

    `__array__` is called when the array is written, and its result dropped afterwards.
    Returns path -> digest (see `digests.py`), computed while arrays are written.
    """
    leaves = jax.tree.map(_Leaf, dict(tree))
    with _checkpointer() as checkpointer:
        checkpointer.save(str(absolute(path)), leaves, custom_metadata={DIGESTED: True})
    return {name: leaf.digest for name, leaf in flatten(leaves).items()}


def restore(path: Path, check: Callable[[Mapping[str, Any]], None] | None = None) -> dict[str, Any]:
    """Reads nested dicts of numpy arrays. Raises what Orbax does where the files are damaged.

    check: called with path -> header (shape, dtype) before any array is read.
    """
    with _checkpointer() as checkpointer:
        tree = checkpointer.metadata(str(absolute(path))).item_metadata.tree
        if check is not None:
            check(flatten(tree))
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpointer.restore(str(absolute(path)), restore_args=as_numpy)


def has_digests(path: Path) -> bool:
    """Returns whether arrays were written with digests, whose loss is then noticed too."""
    with _checkpointer() as checkpointer:
        about = checkpointer.metadata(str(absolute(path)))
        return bool((about.custom_metadata or {}).get(DIGESTED))


class _Leaf:
    """Wraps an array of which Orbax knows only the shape and dtype until it is written."""

    def __init__(self, array: Any) -> None:
        self.array = array
        self.shape, self.dtype = array.shape, array.dtype
        self.size = math.prod(array.shape)
        self.nbytes = self.size * array.dtype.itemsize
        self.digest: ArrayDigest = {}


class _ImmutableArray(np.ndarray):
    """Marks an array as not changing while it is written, so that Orbax need not copy it."""

    def __deepcopy__(self, memo: Any) -> _ImmutableArray:
        return self


class _ChunkedNumpyHandler(type_handlers.NumpyHandler):
    async def serialize(
        self, values: Sequence[_Leaf], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(values)
        writing: Sequence[Any] = []
        for part in _parts([leaf.nbytes for leaf in values]):
            # These are computed while those of the part before are written.
            arrays = [np.asarray(leaf.array).view(_ImmutableArray) for leaf in values[part]]
            for leaf, array in zip(values[part], arrays, strict=True):
                leaf.digest = digest_array(array)
            for written in writing:
                written.result()
            writing = await super().serialize(arrays, infos[part], args[part])
        return writing

    async def metadata(self, infos: Sequence[Any]) -> Sequence[Any]:
        # Orbax's own describes how arrays are stored too, by `Spec.to_json`, of which TensorStore
        # 0.1.86 never frees some 5 kB an array.
        stores = await _all_ended(_opened(infos))
        return [
            ocp.metadata.ArrayMetadata(
                name=info.name, directory=info.parent_dir, shape=store.shape,
                dtype=store.dtype.numpy_dtype, sharding=None,
            )
            for info, store in zip(infos, stores, strict=True)
        ]  # fmt: skip

    async def _background_serialize(self, *args: Any) -> None:
        await _all_ended(super()._background_serialize(*args))

    async def deserialize(
        self, infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[np.ndarray]:
        args = args or [ocp.RestoreArgs()] * len(infos)
        about = await self.metadata(infos)
        sizes = [math.prod(array.shape) * array.dtype.itemsize for array in about]
        arrays: list[np.ndarray] = []
        for part in _parts(sizes):
            arrays += await _all_ended(super().deserialize(infos[part], args[part]))
        return arrays


async def _opened(infos: Sequence[Any]) -> Sequence[tensorstore.TensorStore]:
    def opening(info: Any) -> Awaitable[tensorstore.TensorStore]:
        spec = type_handlers.get_json_tspec_read(info, use_ocdbt=info.is_ocdbt_checkpoint)
        return tensorstore.open(tensorstore.Spec(spec), open=True, context=info.ts_context)

    return await asyncio.gather(*map(opening, infos))


async def _all_ended(work: Awaitable[Result]) -> Result:
    """Awaits `work`, and where it fails also every task that it began.

    `asyncio.gather` raises the first error while the other reads go on; Orbax then closes the
    event loop, and TensorStore prints a trace for each read that ends after it.
    """
    before = asyncio.all_tasks()
    try:
        return await work
    except BaseException:
        await asyncio.gather(*asyncio.all_tasks() - before, return_exceptions=True)
        raise


def _parts(sizes: Sequence[int]) -> Iterator[slice]:
    """Yields slices of at most MAX_BYTES_IN_FLIGHT each, or of one array that has more."""
    start, total = 0, 0
    for i, size in enumerate(sizes):
        if total and total + size > MAX_BYTES_IN_FLIGHT:
            yield slice(start, i)
            start, total = i, 0
        total += size
    yield slice(start, len(sizes))


def _checkpointer() -> ocp.Checkpointer:
    if logging.get_verbosity() > logging.ERROR:  # Orbax logs every step
        logging.set_verbosity(logging.ERROR)
    chunked = _ChunkedNumpyHandler()
    others = [
        (kind, type_handlers.get_type_handler(kind))
        for kind in type_handlers.supported_types()
        if kind is not np.ndarray
    ]
    registry = type_handlers.create_type_handler_registry(
        (_Leaf, chunked), (np.ndarray, chunked), *others
    )
    # Compression saves 4 % of float32 weights and doubles the time.
    # One process alone writes a model folder: Orbax would otherwise wait for all of them.
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.PyTreeCheckpointHandler(
        use_compression=False, type_handler_registry=registry, multiprocessing_options=alone
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)
