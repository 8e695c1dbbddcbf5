"""The contrastive loss over all pairs of a batch, with its gradient."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import encode
from benchmarks.comparison import Implementation, check_agreement, open_workers, repeats_for
from benchmarks.options import Options, positive_ints
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from benchmarks.worker import run_interleaved
from clip_jax.config import PRESETS

WIDTH, SCALE = 512, 14.3  # ruCLIP ViT-B/32's embeddings; 1 / 0.07, CLIP's initial logit scale
CHECKED = 4  # rows whose gradients must agree
TOLERANCE = {"float32": 1e-3}  # relative to the gradients' standard deviation
SECONDS = 1.0  # roughly, of a timed call
MODEL = "ruclip-vit-base-patch32-224"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batches", type=positive_ints, default=(4096,), help="(4096)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """Yield a table for each batch size. On one device "ring" is "tiled"."""
    implementations = {}
    if options.torch:
        implementations["torch, dense"] = Implementation(
            "torch_loss", "float32", {"compiled": True}
        )
    for form in ("gathered", "tiled"):
        implementations[f"ours, {form}"] = Implementation("ours_loss", "float32", {"form": form})
    for batch in args.batches:
        with ExitStack() as stack:
            workers = open_workers(
                stack, implementations, options, batch=batch, width=WIDTH, scale=SCALE
            )
            gradients = {
                name: worker.call("gradient", rows=CHECKED).value
                for name, worker in workers.items()
            }
            errors = check_agreement(implementations, gradients, TOLERANCE, "gradients")
            repeats = {
                name: repeats_for(worker, "step", SECONDS) for name, worker in workers.items()
            }
            timings = run_interleaved(workers, "step", repeats, options.rounds)
        least = machine.seconds("float32", flops(batch), 0)
        rows = [
            Row(
                name,
                batch / timing.wall_seconds,
                batch / timing.cpu_seconds,
                roofline_rate=batch / least,
                max_error=errors[name],
                peak_bytes=timing.peak_bytes,
            )
            for name, timing in timings.items()
        ]
        fraction = flops_fraction(batch)
        title = f"Loss of {batch:,} pairs, {fraction:.2%} of the FLOPs of a ViT-B/32 step"
        yield Table(title, "pairs", next(iter(implementations)), rows)


def flops(batch: int) -> float:
    """Count FLOPs of the logits' matmul and the two of its backward pass, none computed twice."""
    return 3 * 2.0 * batch * batch * WIDTH


def flops_fraction(batch: int) -> float:
    """Return the loss's part of a step's FLOPs, whose backward pass costs two forward passes."""
    towers = sum(encode.cost(PRESETS[MODEL], tower, 1, "float32")[0] for tower in encode.TOWERS)
    return flops(batch) / (3 * towers * batch + flops(batch))
