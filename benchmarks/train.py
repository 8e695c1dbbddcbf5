"""A training step of ruCLIP and of RUDOLPH: loss, gradient and AdamW, on this machine."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace

from benchmarks.contest import Contender, Contest, beside_the_first, within
from benchmarks.options import Options, words
from benchmarks.random_models import clip_folder, original_folder, rudolph_folder
from benchmarks.result import Table
from benchmarks.roofline import Machine
from clip_jax.config import PRESETS as CLIP_PRESETS
from clip_jax.errors import InputError
from rudolph_jax.config import PRESETS

# Of the losses, by which those of another implementation may differ: of two steps, so that a
# wrong gradient or update shows.
TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-3}
CHECKED = 2
# Of glibc: large memory in huge pages, which a step of XLA takes anew each time. PyTorch's step
# was slower with it, and so is one after a pause, for which the host has taken the memory back.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
TORCH = {"float32": "float32", "bfloat16": "autocast"}  # what PyTorch calls the precisions
UNITS = {"clip": "pairs", "rudolph": "sequences"}
CLIP = "ruclip-vit-base-patch32-224"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clip-preset", default=CLIP, choices=tuple(CLIP_PRESETS), help=f"({CLIP})"
    )
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument("--models", type=words, default=tuple(UNITS), help="(clip,rudolph)")
    parser.add_argument(
        "--steady", action="store_true",
        help="as in a long run: a step before each that is timed, and ours in huge pages",
    )  # fmt: skip
    parser.add_argument("--clip-batch", type=int, default=8, help="(8)")
    parser.add_argument("--batch", type=int, default=1, help="(1)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """A table for each model. The roof is of products alone, by operations."""
    for name in ("clip_batch", "batch"):
        if getattr(args, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is {getattr(args, name)}; expected at least 1")
    made = {
        "clip": (clip_folder, args.clip_preset, args.clip_batch),
        "rudolph": (rudolph_folder, args.preset, args.batch),
    }
    for kind in set(args.models) - set(made):
        raise InputError(f"--models: {kind!r} is unknown; expected {', '.join(made)}")
    for kind in args.models:
        make_folder, preset, batch = made[kind]
        folder = make_folder(preset, options.work)
        ours = {"kind": kind, "batch": batch, "folder": str(folder)}
        contenders: dict[str, Contender] = {}
        if options.original_python or options.torch:
            original = str(original_folder(folder))
        if options.original_python:
            how = {**ours, "folder": original}
            contenders["original float32"] = Contender("original_train", "float32", how)
        if options.torch:
            # The shorter run has PyTorch at its best alone.
            for dtype, name in TORCH.items() if args.steady else [("bfloat16", "autocast")]:
                how = {**ours, "original": original, "dtype": dtype}
                contenders[f"torch {name}"] = Contender("torch_train", dtype, how)
        for dtype in TORCH:
            how = {**ours, "dtype": dtype}
            variables = HUGE_PAGES if args.steady else None
            contenders[f"ours {dtype}"] = Contender("ours_train", dtype, how, variables)
        title = f"A step of {preset}, batch {batch}"
        yield _table(title, kind, batch, int(args.steady), contenders, options, machine)


def _table(
    title: str,
    kind: str,
    batch: int,
    before: int,
    contenders: Mapping[str, Contender],
    options: Options,
    machine: Machine,
) -> Table:
    base = next(iter(contenders))

    def apart(name: str, expected: list[float], found: list[float]) -> float:
        apart = max(abs(b / a - 1) for a, b in zip(expected, found, strict=True))
        most = TOLERANCE[contenders[name].dtype]
        within(most, apart, f"{name}: losses", f"those of {base}", "size")
        return apart

    contest = Contest(
        "train",
        batch,
        count=lambda peer: 1,
        answer=lambda peer: [peer.ask("train", count=1).value for _ in range(CHECKED)],
        apart=apart,
        before=before,
    )
    rows, values = beside_the_first(contest, contenders, options)
    (flops, *_) = filter(None, values.values())
    rows = [
        replace(row, roof=batch * machine.flops[each.dtype] / flops)
        for row, each in zip(rows, contenders.values(), strict=True)
    ]
    return Table(title, UNITS[kind], base, rows)
