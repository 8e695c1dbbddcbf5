"""Embedding: images and texts a second through ruCLIP's towers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack

import jax
import jax.numpy as jnp

from benchmarks.contest import Contender, agreed, count_of, opened
from benchmarks.options import Options, numbers, words
from benchmarks.peer import alternate
from benchmarks.random_models import clip_folder, original_folder
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from clip_jax.config import PRESETS, ClipConfig
from clip_jax.model import Clip, abstract_params
from experiments.planning.flops import matmul_flops

# Of the features' spread, by which those of another implementation may differ.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.2}
SECONDS = 1.0  # about what a turn takes
TOWERS = {"image": "pictures", "text": "texts"}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--preset", default="ruclip-vit-base-patch32-224", choices=ruclip_presets(),
        help="(ruclip-vit-base-patch32-224)",
    )  # fmt: skip
    parser.add_argument("--batches", type=numbers, default=(32,), help="(32)")
    parser.add_argument("--dtypes", type=words, default=("float32", "bfloat16"))


def ruclip_presets() -> tuple[str, ...]:
    """Those that the package `ruclip` can build, and a tiny one."""
    return tuple(name for name in PRESETS if name.startswith(("ruclip", "tiny")))


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """A table for each batch size and tower."""
    ours = str(clip_folder(args.preset, options.work))
    contenders = {}
    if options.original_python:
        original = {"folder": str(original_folder(clip_folder(args.preset, options.work)))}
        contenders["original float32"] = Contender("original_encode", "float32", original)
    for dtype in args.dtypes:
        given = {"folder": ours, "dtype": dtype}
        if options.torch:
            how = {**given, "compiled": True}
            contenders[f"torch {dtype}"] = Contender("torch_encode", dtype, how)
        contenders[f"ours {dtype}"] = Contender("ours_encode", dtype, given)
    for batch in args.batches:
        with ExitStack() as stack:
            peers = opened(stack, contenders, options, batch=batch)
            for tower in TOWERS:
                found = {n: peer.ask("features", tower=tower).value for n, peer in peers.items()}
                drifts = agreed(contenders, found, TOLERANCE, "features")
                counts = {
                    name: count_of(peer, "encode", SECONDS, tower=tower)
                    for name, peer in peers.items()
                }
                timings = alternate(peers, "encode", counts, options.rounds, tower=tower)
                rows = []
                for name, timing in timings.items():
                    dtype = contenders[name].dtype
                    least = machine.seconds(dtype, *cost(PRESETS[args.preset], tower, batch, dtype))
                    rates = (batch / timing.wall, batch / timing.processor)
                    about = {"drift": drifts[name], "peak": timing.peak}
                    rows.append(Row(name, *rates, roof=batch / least, **about))
                title = f"{args.preset}, {TOWERS[tower]}, {batch} at once"
                yield Table(title, TOWERS[tower], next(iter(contenders)), rows)


def cost(config: ClipConfig, tower: str, batch: int, dtype: str) -> tuple[float, float]:
    """(operations of products, bytes of kernels read) of a batch."""
    params, size = abstract_params(config), config.vision.image_size
    rows = {
        "image": jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32),
        "text": jax.ShapeDtypeStruct((batch, config.text.context_length), jnp.int32),
    }[tower]

    def encode(params: dict, rows: jax.Array) -> jax.Array:
        return Clip(config).apply({"params": params}, rows, method=f"encode_{tower}")

    part = params[{"image": "visual", "text": "text"}[tower]]
    kernels = sum(leaf.size for leaf in jax.tree.leaves(part) if leaf.ndim > 2)
    flops = matmul_flops(jax.jit(encode).trace(params, rows).jaxpr)
    return flops, kernels * jnp.dtype(dtype).itemsize
