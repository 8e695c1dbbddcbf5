"""python -m clip_jax score SOURCE --model=FOLDER [--min=0.25]."""

from __future__ import annotations

import argparse
import math

from clip_jax.bulk.options import add_bulk_options, add_out_option, out_beside, run_from_options
from clip_jax.bulk.pairs import open_pairs
from clip_jax.bulk.score import ScoreTask
from clip_jax.cli import any_path, positive_int
from clip_jax.config import Compute
from clip_jax.image import PREPROCESSING_VERSION
from clip_jax.part import Part
from clip_jax.pretrained import load

SUFFIX = ".scores"
PIECE_ITEMS = 10_000


def add_score_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=any_path,
        help="images with texts: .tar files, a folder with a table or with .txt beside the images, "
        "a prepared set",
    )  # fmt: skip
    parser.add_argument("--model", type=any_path, required=True, help="folder of a ruCLIP model")
    add_out_option(parser, SUFFIX)
    parser.add_argument(
        "--min", type=_cosine, metavar="COSINE",
        help="write the pairs of at least this score to OUT/shards, as .tar files to train on",
    )  # fmt: skip
    parser.add_argument(
        "--captions", type=any_path, metavar="DIR",
        help="score the images with the captions that rudolph_jax caption wrote here",
    )  # fmt: skip
    parser.add_argument(
        "--text-column", default="", metavar="NAME",
        help="of a table, or the field of .json (a usual name, such as caption)",
    )  # fmt: skip
    parser.add_argument(
        "--batch-size", type=positive_int, default=32, help="images that a device encodes at once"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in"
    )
    add_bulk_options(parser, PIECE_ITEMS)
    parser.add_argument("--quiet", action="store_true", help="no progress")


def run_score(args: argparse.Namespace) -> None:
    """Scores the pairs of a source and prints the counts."""
    if args.part:
        Part.parse(args.part)  # before anything is loaded
    source = open_pairs(args.source, args.text_column, args.captions)
    clip = load(args.model, Compute(dtype=args.dtype))
    settings = {
        "command": "score", "model": clip.content_hash, "dtype": args.dtype,
        "preprocessing": PREPROCESSING_VERSION, "min": args.min,
    }  # fmt: skip
    out = args.out or out_beside(args.source, SUFFIX)
    task = ScoreTask(clip, args.min, args.batch_size)
    run_from_options(args, task, source, out, settings)


def _cosine(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no cosine; expected a number from -1 to 1")
    return value
