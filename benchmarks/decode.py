"""Image generation: codes a second in the middle of an image, sampling included."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace

import jax.numpy as jnp

from benchmarks.comparison import (
    Comparison,
    Implementation,
    check_tolerance,
    compare_to_baseline,
    max_relative_error,
    repeats_for,
)
from benchmarks.options import Options, comma_separated, positive_ints
from benchmarks.random_models import original_folder, rudolph_folder
from benchmarks.result import Table
from benchmarks.roofline import Machine
from clip_jax.errors import InputError
from rudolph_jax.cache_window import cache_window
from rudolph_jax.config import PRESETS, RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_mask_types

CHECKED = 6  # greedy codes that must agree before anything is timed
# Largest difference of logits, relative to their standard deviation.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
SECONDS = 1.0  # roughly, of a timed call


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument("--batches", type=positive_ints, default=(1, 4, 32), help="(1,4,32)")
    parser.add_argument("--dtypes", type=comma_separated, default=("float32", "bfloat16"),
                        help="to compute in (float32,bfloat16)")  # fmt: skip
    parser.add_argument("--int8", action="store_true", help="time 8-bit weights too")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """Yield a table for each batch size."""
    ours = rudolph_folder(args.preset, options.work)
    original = original_folder(ours) if options.original_python or options.torch else None
    config = PRESETS[args.preset]
    for batch in args.batches:
        implementations = {}
        if options.original_python:
            implementations["original float32"] = Implementation(
                "original_decode", "float32", {"folder": str(original)}
            )
        for dtype in args.dtypes:
            arguments = {"folder": str(ours), "dtype": dtype}
            if options.torch:
                implementations[f"torch {dtype}"] = Implementation(
                    "torch_decode",
                    dtype,
                    {**arguments, "original": str(original), "compiled": True},
                )
            implementations[f"ours {dtype}"] = Implementation("ours_decode", dtype, arguments)
            if dtype == args.dtypes[0] and batch == max(args.batches):
                implementations[f"ours {dtype}, full cache"] = Implementation(
                    "ours_decode", dtype, {**arguments, "windowed_cache": False}
                )
            if args.int8:
                implementations[f"ours {dtype}, int8 weights"] = Implementation(
                    "ours_decode", dtype, {**arguments, "weights": "int8"}
                )
        yield _table(config, batch, implementations, options, machine)


def _table(
    config: RudolphConfig,
    batch: int,
    implementations: Mapping[str, Implementation],
    options: Options,
    machine: Machine,
) -> Table:
    position = config.image_tokens_per_side**2 // 2
    base = next(iter(implementations))

    def error(name: str, expected: dict[str, list], actual: dict[str, list]) -> float:
        logits_error = max_relative_error(expected["logits"], actual["logits"])
        dtype = implementations[name].dtype
        if "weights" not in implementations[name].arguments:  # int8 weights give other logits
            check_tolerance(logits_error, TOLERANCE[dtype], f"{name}: logits", f"those of {base}")
            if dtype == "float32" and actual["codes"] != expected["codes"]:
                raise InputError(f"{name}: generates other codes than {base}; nothing was timed")
        return logits_error

    comparison = Comparison(
        "decode",
        batch,
        # At most the codes that follow in the image.
        repeats=lambda worker: min(repeats_for(worker, "decode", SECONDS), position - 1),
        output=lambda worker: worker.call("greedy_codes", count=CHECKED).value,
        error=error,
    )
    rows, _ = compare_to_baseline(
        comparison, implementations, options, batch=batch, position=position
    )
    dtypes = [implementation.dtype for implementation in implementations.values()]
    rows = [
        replace(row, roofline_rate=batch / machine.seconds(dtype, *step_cost(config, batch, dtype)))
        for row, dtype in zip(rows, dtypes, strict=True)
    ]
    return Table(f"RUDOLPH draws, batch {batch}", "codes", base, rows)


def step_cost(config: RudolphConfig, batch: int, dtype: str) -> tuple[float, float]:
    """Return the least FLOPs and bytes read of a decode step: kernels once, KV cache a sample."""
    D, layout = config.width, Layout(config)
    itemsize = jnp.dtype(dtype).itemsize
    columns = layout.code_logits.stop - layout.code_logits.start
    kernels = config.layers * 12 * D * D + columns * D
    # Keys of the image segment are each sample's; those of the prompt are shared.
    image_keys = sum(
        int(cache_window(config, kind, "image").size) for kind in layer_mask_types(config)
    )
    prompt_keys = config.layers * config.left_text_length
    flops = 2 * kernels * batch + 4 * D * (image_keys + prompt_keys) * batch
    return flops, itemsize * (kernels + 2 * D * (image_keys * batch + prompt_keys))
