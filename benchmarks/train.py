"""A training step of ruCLIP and of RUDOLPH: loss, gradient and AdamW, on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace

from benchmarks.comparison import (
    Comparison,
    Implementation,
    check_tolerance,
    compare_to_baseline,
)
from benchmarks.options import Options, comma_separated
from benchmarks.random_models import clip_folder, original_folder, rudolph_folder
from benchmarks.result import Table
from benchmarks.roofline import Machine
from clip_jax.config import PRESETS as CLIP_PRESETS
from clip_jax.errors import InputError
from rudolph_jax.config import PRESETS

# Largest relative difference of the losses of two steps, so that a wrong gradient or update shows.
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-3}
CHECKED_STEPS = 2
# glibc backs large allocations with huge pages; a step of XLA allocates them every time. PyTorch's
# step was slower with it, and so is one after a pause, in which the host took the memory back.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
TORCH = {"float32": "float32", "bfloat16": "autocast"}  # what PyTorch calls the precisions
UNITS = {"clip": "pairs", "rudolph": "sequences"}
CLIP = "ruclip-vit-base-patch32-224"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clip-preset", default=CLIP, choices=tuple(CLIP_PRESETS), help=f"({CLIP})"
    )
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument(
        "--models", type=comma_separated, default=tuple(UNITS), help="(clip,rudolph)"
    )
    parser.add_argument(
        "--steady", action="store_true",
        help="as in a long run: an untimed step before each timed one, ours in huge pages",
    )  # fmt: skip
    parser.add_argument("--clip-batch", type=int, default=8, help="(8)")
    parser.add_argument("--batch", type=int, default=1, help="(1)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """Yield a table for each model. The roofline counts FLOPs of matmuls alone."""
    for name in ("clip_batch", "batch"):
        if getattr(args, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is {getattr(args, name)}; expected at least 1")
    models = {
        "clip": (clip_folder, args.clip_preset, args.clip_batch),
        "rudolph": (rudolph_folder, args.preset, args.batch),
    }
    for kind in set(args.models) - set(models):
        raise InputError(f"--models: {kind!r} is unknown; expected {', '.join(models)}")
    for kind in args.models:
        make_folder, preset, batch = models[kind]
        folder = make_folder(preset, options.work)
        arguments = {"kind": kind, "batch": batch, "folder": str(folder)}
        implementations: dict[str, Implementation] = {}
        if options.original_python or options.torch:
            original = str(original_folder(folder))
        if options.original_python:
            setup = {**arguments, "folder": original}
            implementations["original float32"] = Implementation("original_train", "float32", setup)
        if options.torch:
            # The shorter run times only PyTorch's fastest form.
            for dtype, name in TORCH.items() if args.steady else [("bfloat16", "autocast")]:
                setup = {**arguments, "original": original, "dtype": dtype}
                implementations[f"torch {name}"] = Implementation("torch_train", dtype, setup)
        for dtype in TORCH:
            setup = {**arguments, "dtype": dtype}
            environment = HUGE_PAGES if args.steady else None
            implementations[f"ours {dtype}"] = Implementation(
                "ours_train", dtype, setup, environment
            )
        title = f"A step of {preset}, batch {batch}"
        yield _table(title, kind, batch, int(args.steady), implementations, options, machine)


def _table(
    title: str,
    kind: str,
    batch: int,
    warmup: int,
    implementations: Mapping[str, Implementation],
    options: Options,
    machine: Machine,
) -> Table:
    base = next(iter(implementations))

    def error(name: str, expected: list[float], actual: list[float]) -> float:
        loss_error = max(abs(b / a - 1) for a, b in zip(expected, actual, strict=True))
        tolerance = TOLERANCE[implementations[name].dtype]
        check_tolerance(loss_error, tolerance, f"{name}: losses", f"those of {base}", "magnitude")
        return loss_error

    comparison = Comparison(
        "train",
        batch,
        repeats=lambda worker: 1,
        output=lambda worker: [worker.call("train", repeats=1).value for _ in range(CHECKED_STEPS)],
        error=error,
        warmup=warmup,
    )
    rows, values = compare_to_baseline(comparison, implementations, options)
    (flops, *_) = filter(None, values.values())
    rows = [
        replace(row, roofline_rate=batch * machine.flops[implementation.dtype] / flops)
        for row, implementation in zip(rows, implementations.values(), strict=True)
    ]
    return Table(title, UNITS[kind], base, rows)
