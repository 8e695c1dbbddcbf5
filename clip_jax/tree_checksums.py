"""64-bit checksums of a training state's arrays that do not depend on how these are sharded.

Each is two sums modulo 2**32 over the elements' bits, mixed with their positions; the second weighs
them by odd numbers. Integer sums are exact in any order, so devices each sum their share. The
mixing is a bijection of an element's bits: one changed element, so any single flipped bit, always
changes both sums. Several random changes pass both by a chance below 2**-32.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xxhash
from jax.sharding import NamedSharding, PartitionSpec

from clip_jax import cpu
from clip_jax.errors import InputError
from clip_jax.text import parse_json

ITEM = "checksums"  # of a checkpoint, beside its params
REMEDY = "remove this step's folder to resume from an earlier checkpoint"
DIFFERS = f"checksum differs from the one recorded at saving; the checkpoint is damaged: {REMEDY}"
STRIDE = 0x9E3779B1  # odd, and its multiples are spread evenly over uint32


def checksums(tree: Any, prefix: str = "") -> dict[str, str]:
    """Returns path -> 16 hexadecimal digits, of jax and numpy arrays of any dtype.

    Paths are as Orbax's, "opt_state/0/mu/kernel". Where arrays are sharded over processes, all of
    them must call this together, because each sums its own shards.
    """
    named = [(prefix + path_name(path), leaf) for path, leaf in _leaves(tree)]
    sums = jax.device_get([_finished(_sums(leaf)) for _, leaf in named])
    return {
        name: f"{int(first):08x}{int(second):08x}"
        for (name, _), (first, second) in zip(named, sums, strict=True)
    }


def _finished(sums: Any) -> Any:
    """Waits for a program on CPUs, whose devices wait for one another in threads of one pool.

    Several programs at once can leave no thread for the device that the others wait for.
    """
    return jax.block_until_ready(sums) if cpu.in_use() else sums


def record(
    state: Mapping[str, Any], config: Mapping[str, Any], files: Mapping[str, bytes]
) -> dict[str, Any]:
    """Makes the content of a checkpoint's `checksums` item, for its arrays and config.

    files: beside the checkpoints, such as the run's tokenizer, by name.
    """
    digests = {name: xxhash.xxh3_128_hexdigest(content) for name, content in files.items()}
    return {"arrays": checksums(state), "config": digest_json(config), "files": digests}


def read_record(step_folder: Path) -> dict[str, Any] | None:
    """Reads a checkpoint's `checksums` item; None for checkpoints without one, of old versions."""
    file = step_folder / ITEM / "metadata"
    if not file.parent.is_dir():
        return None
    try:
        content = parse_json(file.read_bytes(), str(file))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); {REMEDY}") from error
    found = content if isinstance(content, dict) else {}
    whole = set(found) == {"arrays", "config", "files"}
    if not (whole and isinstance(found["arrays"], dict) and isinstance(found["files"], dict)):
        raise InputError(f"{file}: holds no checksums; the checkpoint is damaged: {REMEDY}")
    return content


def checksum_faults(recorded: Mapping[str, Any], found: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for each array found whose checksum is not the one recorded."""
    for name, value in sorted(found.items()):
        if recorded["arrays"].get(name) != value:
            yield f"{name}: {DIFFERS}"


def config_faults(recorded: Mapping[str, Any], config: Any) -> Iterator[str]:
    """Yields a line if the config is not the one recorded."""
    if recorded["config"] != digest_json(config):
        yield f"config: {DIFFERS}"


def file_faults(recorded: Mapping[str, Any], files: Mapping[str, bytes]) -> Iterator[str]:
    """Yields a line for each recorded file that is not as it was."""
    for name, content in files.items():
        digest = recorded["files"].get(name)
        if digest not in (None, xxhash.xxh3_128_hexdigest(content)):
            yield (
                f"{name}: checksum differs from the one recorded at saving; the file beside the "
                "checkpoints is damaged or another run's: put the run's own there again"
            )


def digest_json(content: Any) -> str:
    """Computes XXH3 of a JSON value, whatever its formatting."""
    return xxhash.xxh3_128(json.dumps(content, sort_keys=True).encode()).hexdigest()


def path_name(path: tuple[Any, ...]) -> str:
    """Joins the names of a leaf's path, of dicts, tuples, named tuples and lists alike."""
    return "/".join(
        str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))
        for key in path
    )


def _leaves(tree: Any) -> list[tuple[tuple[Any, ...], Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _sums(leaf: Any) -> tuple[jax.Array, jax.Array] | tuple[np.ndarray, np.ndarray]:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if not isinstance(leaf, jax.Array):
        # As it is: device_put would make a float64 a float32.
        leaf = _as_words(np.asarray(leaf))
    sharding = getattr(leaf, "sharding", None)
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
    # Each process needs the sums, so they are replicated on all devices of the array.
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return _compiled(everywhere)(leaf)


@functools.lru_cache(maxsize=16)
def _compiled(out: NamedSharding | None) -> Any:
    return jax.jit(_traced, out_shardings=out)


def _traced(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    words = _words(array)
    # The position in C order, modulo 2**32.
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis in range(words.ndim):
        stride = np.uint32(math.prod(words.shape[axis + 1 :]) % 2**32)
        position += jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis) * stride
    mixed = _mix(words ^ (position * np.uint32(STRIDE)))
    weighed = mixed * (position * np.uint32(2) + np.uint32(1))
    return jnp.sum(mixed, dtype=jnp.uint32), jnp.sum(weighed, dtype=jnp.uint32)


def _words(array: jax.Array) -> jax.Array:
    """Casts elements to uint32 words; 64-bit ones to two, along a last axis, low half first."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    bits = min(8 * array.dtype.itemsize, 32)
    words = jax.lax.bitcast_convert_type(array, jnp.dtype(f"uint{bits}"))
    return words.astype(jnp.uint32)


def _as_words(array: np.ndarray) -> np.ndarray:
    """Views the bits as unsigned integers of up to 32 bits, [n]."""
    bits = min(8 * array.dtype.itemsize, 32)
    return np.ascontiguousarray(array).reshape(-1).view(f"uint{bits}")


def _mix(x: jax.Array) -> jax.Array:
    """Applies MurmurHash3's finaliser, a bijection of uint32 in which every bit affects all."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
