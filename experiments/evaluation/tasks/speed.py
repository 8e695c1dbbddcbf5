"""evaluate speed: images a second, beside the published ones and transformers' CLIPModel."""

from __future__ import annotations

import argparse
import sys

import jax
import jax.numpy as jnp

from clip_jax import PRESETS, Compute, PretrainedClip
from clip_jax.cli import any_path
from clip_jax.config import ClipConfig
from clip_jax.errors import InputError
from clip_jax.model import Clip
from clip_jax.terminal_table import print_markdown
from experiments.evaluation.clip_model import open_clip
from experiments.evaluation.console import print_line
from experiments.evaluation.methods.speed import (
    PUBLISHED_V100,
    TOLERANCE,
    Encoder,
    JaxEncoder,
    Timing,
    largest_difference,
    time_encoders,
)
from experiments.evaluation.run import Result, versions, write_result
from experiments.evaluation.tasks import options

ABOUT, NAME = "images a second, beside PyTorch and the published ones", "speed"
BATCH_SIZES = "8,64"  # the report's, and one that fills a GPU


def add_arguments(parser: argparse.ArgumentParser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", metavar="FOLDER", help="a CLIP's model folder")
    which.add_argument("--preset", choices=sorted(PRESETS), metavar="NAME",
        help=f"random weights of one of {', '.join(PRESETS)}")
    add = parser.add_argument
    add("--batch-sizes", default=BATCH_SIZES, metavar="N,...", help=f"({BATCH_SIZES})")
    add("--pictures", type=int, default=256, metavar="N", help="in a round (256)")
    add("--rounds", type=int, default=5, metavar="N", help="of which the median counts (5)")
    add("--without-torch", action="store_true", help="leave transformers' CLIPModel out")
    add("--dtype", choices=options.DTYPES, default="float32", help="to compute in (float32)")
    add("--out", type=any_path, default=options.OUT, metavar="DIR",
        help=f"of results ({options.OUT})")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    if jax.process_count() > 1:
        raise InputError("speed is measured on one host; leave --distributed out")
    compute = Compute(dtype=args.dtype)
    if args.preset:
        name, preset, clip = args.preset, args.preset, random_clip(PRESETS[args.preset], compute)
    else:
        model = open_clip(args.model, compute=compute)
        name, preset, clip = model.name, model.preset, model.clip
    result = measure(
        clip, preset, _sizes(args.batch_sizes), args.pictures, args.rounds, not args.without_torch
    )
    print_markdown(table(name, result))
    device = jax.devices()[0].device_kind.replace("/", "-")
    file = args.out / NAME / f"{name} on {device}, {args.dtype}.json"
    write_result(file, {"task": NAME, "model": name, **result})
    print_line(f"result: {file}")


def random_clip(config: ClipConfig, compute: Compute = Compute()) -> PretrainedClip:
    """Fresh weights: as fast as any."""
    size, ids = config.vision.image_size, jnp.zeros((1, config.text.context_length), jnp.int32)
    init = jax.jit(Clip(config).init)
    params = init(jax.random.key(0), ids, jnp.zeros((1, size, size, 3)))["params"]
    return PretrainedClip(config, params, None, compute)


def measure(
    clip: PretrainedClip,
    preset: str | None,
    batch_sizes: list[int],
    count: int,
    rounds: int,
    with_torch: bool = True,
) -> Result:
    """Medians and all rounds, for JSON. preset: whose published number stands beside them."""
    encoders: list[Encoder] = [JaxEncoder(clip)]
    difference = None
    if with_torch and (other := _torch_encoder(clip)) is not None:
        difference = largest_difference(encoders[0], other, clip.config)
        if not difference <= TOLERANCE[clip.compute.dtype]:
            raise RuntimeError(
                f"embeddings differ from transformers' by {difference:.2g} of the largest; "
                f"expected at most {TOLERANCE[clip.compute.dtype]}, or speeds say nothing"
            )
        encoders.append(other)
    timings = [
        time_encoders(
            encoders, clip.config, batch_size=size, count=count, rounds=rounds,
            preprocessing=preprocessing,
        )
        for size in batch_sizes
        for preprocessing in (True, False)
    ]  # fmt: skip
    return {
        "preset": preset,
        "dtype": clip.compute.dtype,
        "devices": {encoder.name: encoder.device for encoder in encoders},
        "largest_difference": difference,
        "published_v100": PUBLISHED_V100.get(preset or ""),
        "pictures": count,
        "timings": [_as_json(timing) for timing in timings],
        "made_with": versions(),
    }


def table(name: str, result: Result) -> str:
    """Markdown, for people."""
    names, published = list(result["devices"]), result["published_v100"]
    devices = "; ".join(f"{key} on {device}" for key, device in result["devices"].items())
    head = ["images at once", "preprocessing", *names, "published, V100"]
    lines = [f"{name}, {result['dtype']}, images a second; {devices}", ""]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for timing in result["timings"]:
        alike = timing["batch_size"] == 8 and timing["preprocessing"]
        row = [
            str(timing["batch_size"]),
            "with" if timing["preprocessing"] else "without",
            *(f"{timing['medians'][key]:.2f}" for key in names),
            f"{published:.2f}" if alike and published else "",
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _as_json(timing: Timing) -> Result:
    return {
        "batch_size": timing.batch_size,
        "preprocessing": timing.preprocessing,
        "medians": timing.medians(),
        "rounds": {name: list(rates) for name, rates in timing.rounds.items()},
    }


def _torch_encoder(clip: PretrainedClip) -> Encoder | None:
    """None, and a line about it, where transformers' model cannot be had."""
    if not isinstance(clip.config, ClipConfig):
        print_line("transformers has no CLIPModel of this kind; left out", file=sys.stderr)
        return None
    from experiments.evaluation.methods.torch_clip import TorchEncoder

    try:
        return TorchEncoder(clip)
    except ModuleNotFoundError as error:
        print_line(
            f"transformers' CLIPModel is left out: {error.name} is not installed: "
            "pip install 'rudolph-jax[torch]'",
            file=sys.stderr,
        )
        return None


def _sizes(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--batch-sizes is {text!r}; expected numbers such as {BATCH_SIZES}")
    return [int(part) for part in parts]
