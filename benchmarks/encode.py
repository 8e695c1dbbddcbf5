"""Encoding: images and texts a second through ruCLIP's towers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack

import jax
import jax.numpy as jnp

from benchmarks.comparison import Implementation, check_agreement, open_workers, repeats_for
from benchmarks.options import Options, comma_separated, positive_ints
from benchmarks.random_models import clip_folder, original_folder
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from benchmarks.worker import run_interleaved
from clip_jax.config import PRESETS, ClipConfig
from clip_jax.model import Clip, abstract_params
from experiments.planning.flops import matmul_flops

# Largest difference of features, relative to their standard deviation.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}
SECONDS = 1.0  # roughly, of a timed call
TOWERS = {"image": "images", "text": "texts"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", default="ruclip-vit-base-patch32-224", choices=ruclip_presets(),
        help="(ruclip-vit-base-patch32-224)",
    )  # fmt: skip
    parser.add_argument("--batches", type=positive_ints, default=(32,), help="(32)")
    parser.add_argument("--dtypes", type=comma_separated, default=("float32", "bfloat16"),
                        help="to compute in (float32,bfloat16)")  # fmt: skip


def ruclip_presets() -> tuple[str, ...]:
    """List the presets that the package `ruclip` can build, and a tiny one."""
    return tuple(name for name in PRESETS if name.startswith(("ruclip", "tiny")))


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """Yield a table for each batch size and tower."""
    ours = str(clip_folder(args.preset, options.work))
    implementations = {}
    if options.original_python:
        original = {"folder": str(original_folder(clip_folder(args.preset, options.work)))}
        implementations["original float32"] = Implementation("original_encode", "float32", original)
    for dtype in args.dtypes:
        arguments = {"folder": ours, "dtype": dtype}
        if options.torch:
            compiled = {**arguments, "compiled": True}
            implementations[f"torch {dtype}"] = Implementation("torch_encode", dtype, compiled)
        implementations[f"ours {dtype}"] = Implementation("ours_encode", dtype, arguments)
    for batch in args.batches:
        with ExitStack() as stack:
            workers = open_workers(stack, implementations, options, batch=batch)
            for tower in TOWERS:
                features = {
                    name: worker.call("features", tower=tower).value
                    for name, worker in workers.items()
                }
                errors = check_agreement(implementations, features, TOLERANCE, "features")
                repeats = {
                    name: repeats_for(worker, "encode", SECONDS, tower=tower)
                    for name, worker in workers.items()
                }
                timings = run_interleaved(workers, "encode", repeats, options.rounds, tower=tower)
                rows = []
                for name, timing in timings.items():
                    dtype = implementations[name].dtype
                    least = machine.seconds(dtype, *cost(PRESETS[args.preset], tower, batch, dtype))
                    rows.append(
                        Row(
                            name,
                            batch / timing.wall_seconds,
                            batch / timing.cpu_seconds,
                            roofline_rate=batch / least,
                            max_error=errors[name],
                            peak_bytes=timing.peak_bytes,
                        )
                    )
                title = f"{args.preset}, {TOWERS[tower]}, batch {batch}"
                yield Table(title, TOWERS[tower], next(iter(implementations)), rows)


def cost(config: ClipConfig, tower: str, batch: int, dtype: str) -> tuple[float, float]:
    """Return FLOPs of matmuls and bytes of kernels read for a batch."""
    params, size = abstract_params(config), config.vision.image_size
    inputs = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32),
        "text": jax.ShapeDtypeStruct((batch, config.text.context_length), jnp.int32),
    }[tower]

    def encode(params: dict, inputs: jax.Array) -> jax.Array:
        return Clip(config).apply({"params": params}, inputs, method=f"encode_{tower}")

    tower_params = params[{"image": "visual", "text": "text"}[tower]]
    kernels = sum(leaf.size for leaf in jax.tree.leaves(tower_params) if leaf.ndim > 2)
    flops = matmul_flops(jax.jit(encode).trace(params, inputs).jaxpr)
    return flops, kernels * jnp.dtype(dtype).itemsize
