"""Samples in batches of one shape: what drawing, captioning and writing have in common.

# G guidance streams, P prompts, M tokens of a prompt, N tokens of the segment that is written
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from clip_jax.errors import InputError
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.sampling import Sampling


@dataclasses.dataclass(frozen=True)
class Run:
    """How samples are drawn; none of it changes what sample i of a seed is, but seed and sampling.

    batch_size: samples at once, over all prompts. quiet: no progress bar (there is none off a
    terminal anyway). mesh: devices to share the samples, over its axis "data"; None: the default
    device.
    """

    sampling: Sampling
    seed: int = 0
    batch_size: int = 24
    quiet: bool = False
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size is {self.batch_size}; expected at least 1")


def samples(
    rudolph: PretrainedRudolph,
    run: Run,
    segment: str,
    prompts: np.ndarray,
    start: int,
    count: int,
    *,
    fixed: np.ndarray | None = None,
    allowed: np.ndarray | None = None,
    stop: int | None = None,
    guidance: str = "none",
    guidance_weight: float = 0.0,
    first_prompt: int = 0,
) -> Iterator[np.ndarray]:
    """Yields int32[P, b, N], some more samples of each prompt at a time, until there are `count`.

    prompts: int32[G, P, M], of which `start` ids count. fixed: int32[N], given tokens, -1 where
    to sample. allowed: bool[V], what may be chosen. stop: where in the segment to end. See
    `decode.SamplerInputs`. Sample i of prompt p follows from the seed, p and i alone; prompts count
    from `first_prompt`.
    """
    if count < 1:
        raise InputError(f"{count} samples were asked for; expected at least 1")
    G, P, _ = prompts.shape
    each = min(_power_of_two(count), max(run.batch_size // P, 1))
    plan = SamplerConfig(rudolph.config, rudolph.compute, segment, each, guidance)
    N = plan.written.stop - plan.written.start
    fixed = np.full(N, -1, np.int32) if fixed is None else np.asarray(fixed, np.int32)
    seed = np.uint32(run.seed & 0xFFFFFFFF)  # what a key is made of
    mesh = None if run.mesh is None else _automatic(run.mesh)
    params = rudolph.inference_params if mesh is None else _placed(mesh, rudolph.inference_params)
    hidden = True if run.quiet else None
    with tqdm(total=P * count, unit=" samples", disable=hidden, leave=False) as bar:
        for first in range(0, count, each):
            keys = _keys(seed, first_prompt + np.arange(P), first, each)
            if mesh is not None:
                keys = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("data")))
            # On the host: each of these would be a small program.
            inputs: dict[str, Any] = {
                "prompts": np.asarray(prompts, np.int32),
                "start": np.int32(start),
                "stop": np.int32(N if stop is None else min(stop, N)),
                "fixed": np.tile(fixed, (P, 1)),
                "allowed": np.ones(1, bool) if allowed is None else np.asarray(allowed),
                "guidance_weight": np.float32(guidance_weight),
            }
            request = SamplerInputs(keys=keys, options=run.sampling.to_arrays(), **inputs)
            with rudolph.precision:
                tokens = np.asarray(generate(plan, params, request))
            wanted = min(each, count - first)
            yield tokens.reshape(P, each, N)[:, :wanted]
            bar.update(P * wanted)


def _power_of_two(count: int) -> int:
    """The next one up, so that few sizes are ever compiled."""
    return 1 << (count - 1).bit_length()


@partial(jax.jit, static_argnames="count")
def _keys(seed: np.uint32, prompts: np.ndarray, first: int, count: int) -> jax.Array:
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    of_prompts = fold(jax.random.key(seed), jnp.asarray(prompts))
    of_samples = jax.vmap(fold, (0, None))(of_prompts, first + jnp.arange(count))
    return of_samples.reshape(-1)


def _automatic(mesh: Mesh) -> Mesh:
    """The same devices, where the compiler finds out how what follows from the keys is split."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def _placed(mesh: Mesh, params: Mapping[str, Any]) -> Mapping[str, Any]:
    return jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
