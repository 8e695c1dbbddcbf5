"""Drawing: codes a second in the middle of an image, sampling included."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace

import jax.numpy as jnp

from benchmarks.contest import Contender, Contest, beside_the_first, count_of, drift, within
from benchmarks.options import Options, numbers, words
from benchmarks.random_models import original_folder, rudolph_folder
from benchmarks.result import Table
from benchmarks.roofline import Machine
from clip_jax.errors import InputError
from rudolph_jax.cache_window import window
from rudolph_jax.config import PRESETS, RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_kinds

CHECKED = 6  # codes that must be the same before anything is timed
# Of the logits' spread, by which those of another implementation may differ.
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}
SECONDS = 1.0  # about what a turn takes


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument("--batches", type=numbers, default=(1, 4, 32), help="(1,4,32)")
    parser.add_argument("--dtypes", type=words, default=("float32", "bfloat16"))
    parser.add_argument("--int8", action="store_true", help="time weights of eight bits too")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """A table for each batch size."""
    ours = rudolph_folder(args.preset, options.work)
    original = original_folder(ours) if options.original_python or options.torch else None
    config = PRESETS[args.preset]
    for batch in args.batches:
        contenders = {}
        ported = {"folder": str(ours), "original": str(original), "compiled": True}
        if options.original_python:
            contenders["original float32"] = Contender(
                "original_decode", "float32", {"folder": str(original)}
            )
        for dtype in args.dtypes:
            given = {"folder": str(ours), "dtype": dtype}
            if options.torch:
                contenders[f"torch {dtype}"] = Contender("torch_decode", dtype, {**ported, **given})
            contenders[f"ours {dtype}"] = Contender("ours_decode", dtype, given)
            if dtype == args.dtypes[0] and batch == max(args.batches):
                contenders[f"ours {dtype}, all keys kept"] = Contender(
                    "ours_decode", dtype, {**given, "trimmed": False}
                )
            if args.int8:
                contenders[f"ours {dtype}, int8 weights"] = Contender(
                    "ours_decode", dtype, {**given, "weights": "int8"}
                )
        yield _table(config, batch, contenders, options, machine)


def _table(
    config: RudolphConfig,
    batch: int,
    contenders: Mapping[str, Contender],
    options: Options,
    machine: Machine,
) -> Table:
    place = config.image_tokens_per_side**2 // 2
    base = next(iter(contenders))

    def apart(name: str, expected: dict[str, list], found: dict[str, list]) -> float:
        drifted = drift(expected["logits"], found["logits"])
        dtype = contenders[name].dtype
        if "weights" not in contenders[name].how:  # those are not to give the same
            within(TOLERANCE[dtype], drifted, f"{name}: logits", f"those of {base}", "spread")
            if dtype == "float32" and found["codes"] != expected["codes"]:
                raise InputError(f"{name}: draws other codes than {base}; nothing was timed")
        return drifted

    contest = Contest(
        "draw",
        batch,
        # As many as fit what is left of the picture.
        count=lambda peer: min(count_of(peer, "draw", SECONDS), place - 1),
        answer=lambda peer: peer.ask("first_codes", count=CHECKED).value,
        apart=apart,
    )
    rows, _ = beside_the_first(contest, contenders, options, batch=batch, place=place)
    dtypes = [contender.dtype for contender in contenders.values()]
    rows = [
        replace(row, roof=batch / machine.seconds(dtype, *step_cost(config, batch, dtype)))
        for row, dtype in zip(rows, dtypes, strict=True)
    ]
    return Table(f"RUDOLPH draws {batch} at once", "codes", base, rows)


def step_cost(config: RudolphConfig, batch: int, dtype: str) -> tuple[float, float]:
    """(operations, bytes read) of one step at least: kernels once, keys and values of each."""
    D, layout = config.width, Layout(config)
    width = jnp.dtype(dtype).itemsize
    columns = layout.code_logits.stop - layout.code_logits.start
    kernels = config.layers * 12 * D * D + columns * D
    # Keys that lie in the segment, of each sample; those of the prompt, of all together.
    own = sum(int(window(config, kind, "image").size) for kind in layer_kinds(config))
    prompt = config.layers * config.left_text_length
    flops = 2 * kernels * batch + 4 * D * (own + prompt) * batch
    return flops, width * (kernels + 2 * D * (own * batch + prompt))
