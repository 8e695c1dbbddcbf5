"""The contrastive loss over all pairs of a batch, with its gradient."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import encode
from benchmarks.contest import Contender, agreed, count_of, opened
from benchmarks.options import Options, numbers
from benchmarks.peer import alternate
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from clip_jax.config import PRESETS

WIDTH, SCALE = 512, 14.3  # of ruCLIP ViT-B/32's embeddings, and 1 / 0.07, where CLIP begins
CHECKED = 4  # rows whose gradients must agree
TOLERANCE = {"float32": 1e-3}  # of the gradients' spread
SECONDS = 1.0  # about what a turn takes
MODEL = "ruclip-vit-base-patch32-224"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batches", type=numbers, default=(4096,), help="(4096)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """A table for each batch size. On one device "ring" is "tiled"."""
    contenders = {}
    if options.torch:
        contenders["torch, dense"] = Contender("torch_loss", "float32", {"compiled": True})
    for form in ("gathered", "tiled"):
        contenders[f"ours, {form}"] = Contender("ours_loss", "float32", {"form": form})
    for batch in args.batches:
        with ExitStack() as stack:
            peers = opened(stack, contenders, options, batch=batch, width=WIDTH, scale=SCALE)
            found = {n: peer.ask("gradient", rows=CHECKED).value for n, peer in peers.items()}
            drifts = agreed(contenders, found, TOLERANCE, "gradients")
            counts = {name: count_of(peer, "step", SECONDS) for name, peer in peers.items()}
            timings = alternate(peers, "step", counts, options.rounds)
        least = machine.seconds("float32", flops(batch), 0)
        rows = [
            Row(
                name, batch / timing.wall, batch / timing.processor,
                roof=batch / least, drift=drifts[name], peak=timing.peak,
            )
            for name, timing in timings.items()
        ]  # fmt: skip
        title = f"Loss of {batch:,} pairs, {share(batch):.2%} of the operations of a ViT-B/32 step"
        yield Table(title, "pairs", next(iter(contenders)), rows)


def flops(batch: int) -> float:
    """Of the logits' product and the two of its backward pass; none is made twice."""
    return 3 * 2.0 * batch * batch * WIDTH


def share(batch: int) -> float:
    """Of the loss in the operations of a step, whose backward pass costs twice the forward one."""
    towers = sum(encode.cost(PRESETS[MODEL], tower, 1, "float32")[0] for tower in encode.TOWERS)
    return flops(batch) / (3 * towers * batch + flops(batch))
