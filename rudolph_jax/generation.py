"""Sampling in batches of one shape, shared by text to image, captions and text generation.

# G guidance streams, P prompts, M tokens of a prompt, N tokens of the sampled segment
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clip_jax.arguments import check_flag, check_integer, check_seed, describe
from clip_jax.errors import InputError
from clip_jax.progress import progress_bar
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate_on_device
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.sampling import SamplingParams


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """Settings of a generation; `sampling` and `seed` alone decide what sample i is.

    batch_size: samples at once, over all prompts.
    quiet: show no progress bar; without a terminal there is none anyway.
    mesh: devices to split the samples over, along its axis "data"; None: the default device.
    """

    sampling: SamplingParams
    seed: int = 0
    batch_size: int = 24
    quiet: bool = False
    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", check_seed(self.seed))
        object.__setattr__(self, "batch_size", check_integer("batch_size", self.batch_size))
        check_flag("quiet", self.quiet)
        if self.mesh is not None and "data" not in getattr(self.mesh, "axis_names", ()):
            raise InputError(
                f"mesh is {describe(self.mesh)}; expected a jax.sharding.Mesh with an axis 'data', "
                "or None"
            )


def sample_batches(
    rudolph: PretrainedRudolph,
    generation: GenerationConfig,
    segment: str,
    prompts: np.ndarray,
    start: int,
    count: int,
    *,
    forced_tokens: np.ndarray | None = None,
    allowed_tokens: np.ndarray | None = None,
    stop: int | None = None,
    guidance: str = "none",
    guidance_weight: float = 0.0,
    first_prompt: int = 0,
    seeds: Sequence[int] | None = None,
) -> Iterator[np.ndarray]:
    """Yields int32[P, b, N], b more samples of each prompt at a time, until there are `count`.

    prompts: int32[G, P, M], of which the first `start` ids are read.
    forced_tokens: int32[N], given tokens, -1 where to sample.
    allowed_tokens: bool[V], which tokens may be chosen.
    stop: position in the segment to end at; see `decode.SamplerInputs`.
    first_prompt: number of the first prompt. Sample i of prompt p depends on the seed, p and i
        alone.
    seeds: uint32[P], one for each prompt: the samples are those of the prompt alone with this seed.
    """
    if count < 1:
        raise InputError(f"{count} samples were requested; expected at least 1")
    G, P, _ = prompts.shape
    samples_per_batch = min(_power_of_two(count), max(generation.batch_size // P, 1))
    sampler = SamplerConfig(rudolph.config, rudolph.compute, segment, samples_per_batch, guidance)
    N = sampler.target_slice.stop - sampler.target_slice.start
    if forced_tokens is None:
        forced_tokens = np.full(N, -1, np.int32)
    numbers = first_prompt + np.arange(P)
    prompt_seeds = np.full(P, generation.seed, np.uint32)
    if seeds is not None:
        numbers, prompt_seeds = np.zeros(P, np.int64), np.asarray(seeds, np.uint32)
    mesh, params = None, rudolph.inference_params
    if generation.mesh is not None:
        mesh = _auto_mesh(generation.mesh)
        devices = mesh.shape["data"]
        if P * samples_per_batch % devices:
            raise InputError(
                f"{P * samples_per_batch} samples at once do not divide among {devices} devices; "
                f"expected a multiple: more samples, and batch_size a multiple of {devices}"
            )
        params = _replicate(mesh, params)
    with progress_bar(P * count, "samples", quiet=generation.quiet) as bar:
        for first in range(0, count, samples_per_batch):
            keys = _keys(prompt_seeds, numbers, first, samples_per_batch)
            if mesh is not None:
                keys = jax.device_put(keys, NamedSharding(mesh, PartitionSpec("data")))
            # On the host: as JAX arrays each of these would be a small program.
            arrays: dict[str, Any] = {
                "prompts": np.asarray(prompts, np.int32),
                "start": np.int32(start),
                "stop": np.int32(N if stop is None else min(stop, N)),
                "forced_tokens": np.tile(np.asarray(forced_tokens, np.int32), (P, 1)),
                "allowed_tokens": (
                    np.ones(1, bool) if allowed_tokens is None else np.asarray(allowed_tokens)
                ),
                "guidance_weight": np.float32(guidance_weight),
            }
            sampling = generation.sampling.to_arrays()
            inputs = SamplerInputs(keys=keys, sampling=sampling, **arrays)
            with rudolph.precision:
                tokens = np.asarray(generate_on_device(sampler, params, inputs))
            wanted = min(samples_per_batch, count - first)
            yield tokens.reshape(P, samples_per_batch, N)[:, :wanted]
            bar.update(P * wanted)


def _power_of_two(count: int) -> int:
    """Rounds up to a power of two, so that few sizes are ever compiled."""
    return 1 << (count - 1).bit_length()


@partial(jax.jit, static_argnames="count")
def _keys(seeds: np.ndarray, prompts: np.ndarray, first: int, count: int) -> jax.Array:
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    of_prompts = jax.vmap(jax.random.fold_in)(jax.vmap(jax.random.key)(seeds), prompts)
    of_samples = jax.vmap(fold, (0, None))(of_prompts, first + jnp.arange(count))
    return of_samples.reshape(-1)


def _auto_mesh(mesh: Mesh) -> Mesh:
    """Returns a mesh of the same devices, on which the compiler propagates the keys' sharding."""
    return Mesh(mesh.devices, mesh.axis_names, axis_types=(AxisType.Auto,) * mesh.devices.ndim)


def _replicate(mesh: Mesh, params: Mapping[str, Any]) -> Mapping[str, Any]:
    return jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
