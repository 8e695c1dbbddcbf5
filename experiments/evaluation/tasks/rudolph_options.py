"""Arguments that RUDOLPH's tasks share, and what they open."""

from __future__ import annotations

import argparse

import jax

from clip_jax import Compute
from clip_jax.errors import InputError
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.clip_model import System, open_system
from experiments.evaluation.rudolph_bench import RudolphBench, open_rudolph
from experiments.evaluation.tasks import options
from rudolph_jax.pretrained import WEIGHTS


def add_rudolph(parser: argparse.ArgumentParser, sets: str) -> None:
    """sets: what --sets takes."""
    add = parser.add_argument
    add("--model", required=True, metavar="[NAME=]FOLDER",
        help="a RUDOLPH's model folder, with the name that tables shall give it")
    add("--vqgan", required=True, metavar="FOLDER", help="its image tokenizer's model folder")
    add("--sets", required=True, metavar="NAME,...", help=sets)
    add("--test-split", default="test", metavar="NAME", help="to measure on (test)")
    add("--first", type=int, metavar="N", help="measure on a set's first N examples (all)")
    add("--weights", choices=WEIGHTS, default=WEIGHTS[0], help="of the layers (stored)")
    options.add_running(parser)


def add_ruclip(parser: argparse.ArgumentParser, needed: bool) -> None:
    parser.add_argument(
        "--ruclip", required=needed, metavar="FOLDER",
        help="a ruCLIP's model folder, which compares captions and pictures",
    )  # fmt: skip


def bench(args: argparse.Namespace) -> RudolphBench:
    if jax.process_count() > 1:
        raise InputError(
            f"{args.task} runs on one host, not on {jax.process_count()}; leave --distributed out"
        )
    name, _, folder = args.model.rpartition("=")
    return open_rudolph(
        folder, args.vqgan, Compute(dtype=args.dtype), args.weights,
        name=name, batch_size=args.batch_size, out=args.out,
        cache=ArrayCache(args.cache), first=args.first,
    )  # fmt: skip


def ruclip(args: argparse.Namespace) -> System | None:
    if args.ruclip is None:
        return None
    return open_system(args.ruclip, batch_size=args.batch_size, compute=Compute(dtype=args.dtype))
