"""Scaling of image generation with batch, image and model: seconds a code, and bytes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.options import Options, comma_separated, positive_ints
from benchmarks.random_models import parameter_count, random_params
from benchmarks.result import Series
from benchmarks.roofline import Machine
from clip_jax import Compute
from clip_jax.cpu.transposed import transpose_kernels
from clip_jax.layers import unstack_layers
from rudolph_jax import RudolphConfig
from rudolph_jax.config import PRESETS
from rudolph_jax.decode import (
    SamplerConfig,
    SamplerInputs,
    SamplingState,
    prefill,
    sample_loop,
)
from rudolph_jax.incremental import Params
from rudolph_jax.layout import Layout
from rudolph_jax.model import abstract_params
from rudolph_jax.sampling import IMAGE_SAMPLING

PLANS = Path(__file__).parent.parent / "docs/plans.jsonl"
CHIP, PLANNED = "v4", ("ruclip_vit_large_patch14_224", "rudolph_2_7b")
CODES = 4  # in a timed call
LAYERS = 4  # of every model that is run: enough for all kinds of mask
SAMPLE_LOOP = partial(jax.jit, static_argnums=(0, 5), donate_argnums=4)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batches", type=positive_ints, default=(1, 4, 16, 64), help="(1,4,16,64)")
    parser.add_argument("--sides", type=positive_ints, default=(8, 16, 32),
                        help="of images in codes (8,16,32)")  # fmt: skip
    parser.add_argument("--presets", type=comma_separated,
                        default=("350M", "1.3B", "2.7B"), help="(350M,1.3B,2.7B)")  # fmt: skip
    parser.add_argument("--plot", type=Path, help="PNG file of all plots")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Series]:
    """Yield time of a model's first layers by batch and by image; memory of whole models."""
    found = []
    for series in _all_series(args, options):
        found.append(series)
        yield series
    if args.plot:
        from benchmarks.scaling_plot import plot

        plot(found, args.plot)


def _all_series(args: argparse.Namespace, options: Options) -> Iterator[Series]:
    first = args.presets[0]
    small = dataclasses.replace(PRESETS[first], layers=LAYERS)
    configs = [dataclasses.replace(small, image_tokens_per_side=side) for side in args.sides]
    caches = {"windowed cache": True, "full cache": False}
    yield Series(
        f"A step of {LAYERS} layers of {first}", "batch", "milliseconds", args.batches,
        {name: [1e3 * seconds(small, batch, windowed, options.rounds) for batch in args.batches]
         for name, windowed in caches.items()},
    )  # fmt: skip
    yield Series(
        f"A step of {LAYERS} layers of {first} for 16 images", "side in codes", "milliseconds",
        args.sides,
        {name: [1e3 * seconds(config, 16, windowed, options.rounds) for config in configs]
         for name, windowed in caches.items()},
    )  # fmt: skip
    yield Series(
        f"What an image adds to memory, {LAYERS} layers of {first} in bfloat16",
        "side in codes",
        "MB",
        args.sides,
        {
            name: [_cache_megabytes(config, windowed) for config in configs]
            for name, windowed in caches.items()
        },
    )
    models = [PRESETS[name] for name in args.presets]
    yield Series(
        "Parameters in bfloat16", "model", "MB", args.presets,
        {"parameters": [2 * parameter_count(name) / 1e6 for name in args.presets]},
    )  # fmt: skip
    yield Series(
        "What an image adds to memory, bfloat16", "model", "MB", args.presets,
        {name: [_cache_megabytes(config, windowed) for config in models]
         for name, windowed in caches.items()},
    )  # fmt: skip
    yield peak_memory(map(json.loads, PLANS.read_text(encoding="utf-8").splitlines()))


def peak_memory(rows: Iterable[Mapping[str, Any]], chip: str = CHIP) -> Series:
    """Return the peak memory of a device in a training step by the number of devices.

    rows: of docs/plans.jsonl, from `experiments.plan`.
    """
    peaks: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["topology"].startswith(chip + ":") and row["config"] in PLANNED:
            devices = math.prod(row["mesh"].values())
            peaks.setdefault(row["config"], {})[devices] = row["peak_bytes"] / 1e9
    at = sorted({devices for found in peaks.values() for devices in found})
    return Series(
        f"Peak memory of a device in a training step, {chip}", "devices", "GB", at,
        {name: [peaks[name][devices] for devices in at] for name in PLANNED},
    )  # fmt: skip


def seconds(config: RudolphConfig, batch: int, windowed: bool, rounds: int) -> float:
    """Return the median seconds of a decode step in the middle of an image, in float32."""
    sampler = SamplerConfig(config, Compute(), "image", batch, windowed_cache=windowed)
    params = _params(config)
    inputs = _inputs(sampler)
    prompt, state = jax.jit(prefill, static_argnums=0)(sampler, params, inputs)
    step, middle = SAMPLE_LOOP(sample_loop), Layout(config).image_length // 2
    times = []
    for _ in range(rounds + 1):
        state = jax.block_until_ready(state._replace(position=jnp.int32(middle)))
        start = perf_counter()
        state = jax.block_until_ready(step(sampler, params, inputs, prompt, state, CODES))
        times.append((perf_counter() - start) / CODES)
    return median(times[1:])


@lru_cache(maxsize=1)
def _params(config: RudolphConfig) -> Params:
    params = random_params(unstack_layers(abstract_params(config)))
    return jax.device_put(transpose_kernels(params) if jax.default_backend() == "cpu" else params)


def _cache_megabytes(config: RudolphConfig, windowed: bool) -> float:
    sampler = SamplerConfig(config, Compute(dtype="bfloat16"), "image", 1, windowed_cache=windowed)
    params: Params = unstack_layers(abstract_params(config))
    state: SamplingState = jax.eval_shape(
        lambda params: prefill(sampler, params, _inputs(sampler))[1], params
    )
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.cache)) / 1e6


def _inputs(sampler: SamplerConfig) -> SamplerInputs:
    layout = Layout(sampler.config)
    return SamplerInputs(
        prompts=jnp.ones((1, 1, sampler.prompt_length), jnp.int32),
        start=jnp.int32(sampler.prompt_length),
        stop=jnp.int32(layout.image_length),
        forced_tokens=jnp.full((1, layout.image_length), -1, jnp.int32),
        allowed_tokens=jnp.ones(1, bool),
        keys=jax.random.split(jax.random.key(0), sampler.samples),
        sampling=IMAGE_SAMPLING.to_arrays(),
        guidance_weight=jnp.float32(0),
    )
