"""A training step of ruCLIP and of RUDOLPH: loss, gradient and AdamW, on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from statistics import median

from benchmarks.options import Options
from benchmarks.peer import Peer, alternate
from benchmarks.random_models import clip_folder, original_folder, rudolph_folder
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from clip_jax.config import PRESETS as CLIP_PRESETS
from clip_jax.errors import InputError
from rudolph_jax.config import PRESETS

# Of the loss, by which that of another implementation may differ at the same parameters.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
ROUNDS = 1  # at most: a step takes seconds, and the whole of `make bench` 20 minutes
UNITS = {"clip": "pairs", "rudolph": "sequences"}
CLIP = "ruclip-vit-base-patch32-224"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clip-preset", default=CLIP, choices=tuple(CLIP_PRESETS), help=f"({CLIP})"
    )
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument("--clip-batch", type=int, default=8, help="(8)")
    parser.add_argument("--batch", type=int, default=1, help="(1)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """A table for each model. The roof is of products alone, by operations."""
    for name in ("clip_batch", "batch"):
        if getattr(args, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is {getattr(args, name)}; expected at least 1")
    asked = {
        "clip": (args.clip_preset, args.clip_batch, clip_folder(args.clip_preset, options.work)),
        "rudolph": (args.preset, args.batch, rudolph_folder(args.preset, options.work)),
    }
    for kind, (preset, batch, folder) in asked.items():
        shared = {"kind": kind, "batch": batch}
        ours = {**shared, "folder": str(folder)}
        contenders = {}
        if options.original_python:
            original = {**shared, "folder": str(original_folder(folder))}
            contenders["original float32"] = ("original_train", {**original, "dtype": "float32"})
            contenders["original, autocast"] = ("original_train", {**original, "dtype": "bfloat16"})
        for dtype in ("float32", "bfloat16"):
            contenders[f"ours {dtype}"] = ("ours_train", {**ours, "dtype": dtype})
        rows, base = _rows(contenders, batch, options, machine)
        yield Table(f"A step of {preset}, batch {batch}", UNITS[kind], base, rows)


def _rows(
    contenders: dict[str, tuple[str, dict]], batch: int, options: Options, machine: Machine
) -> tuple[list[Row], str]:
    """Each beside the first, two at a time: parameters and moments take much memory."""
    (base, (module, how)), *others = contenders.items()
    rows, rates, rounds = [], [], min(options.rounds, ROUNDS)
    with Peer(module, _python(module, options)) as first:
        flops = first.ask("open", **how).value
        expected = first.ask("train", count=1).value
        for name, (other, given) in others:
            with Peer(other, _python(other, options)) as peer:
                flops = peer.ask("open", **given).value or flops
                loss, dtype = peer.ask("train", count=1).value, given["dtype"]
                if not abs(loss - expected) <= TOLERANCE[dtype] * abs(expected):
                    raise InputError(
                        f"{name}: the loss is {loss}, that of {base} {expected}; nothing was timed"
                    )
                peers = {base: first, name: peer}
                timings = alternate(peers, "train", dict.fromkeys(peers, 1), rounds)
            beside, own = (
                (batch / timings[each].wall, batch / timings[each].processor)
                for each in (base, name)
            )
            rates.append(beside)
            rows.append((name, own, beside, dtype, abs(loss / expected - 1), timings[name].peak))
            peak = timings[base].peak
    # The first peer may be one that cannot tell its operations, so that rows are made last.
    made = [
        Row(name, *own, beside, batch * machine.flops[dtype] / flops, apart, most)
        for name, own, beside, dtype, apart, most in rows
    ]
    rate, processor = (median(found) for found in zip(*rates, strict=True))
    roof = batch * machine.flops["float32"] / flops
    return [Row(base, rate, processor, roof=roof, peak=peak), *made], base


def _python(module: str, options: Options) -> str | None:
    return options.original_python if module.startswith("original") else None
