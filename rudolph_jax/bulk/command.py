"""draw --prompts=FILE, caption SOURCE and classify SOURCE: any number of texts or images."""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from pathlib import Path
from typing import Any

import clip_jax
from clip_jax.bulk.images import open_images
from clip_jax.bulk.items import Source
from clip_jax.bulk.options import add_bulk_options, out_beside, run_from_options
from clip_jax.bulk.output import FORMATS
from clip_jax.bulk.prompts import PromptFile
from clip_jax.bulk.run import Task
from clip_jax.cli import any_path
from clip_jax.errors import InputError
from clip_jax.image import PREPROCESSING_VERSION
from clip_jax.part import Part
from clip_jax.text import check_encodable
from rudolph_jax import cli_commands, tasks
from rudolph_jax.bulk.caption import CaptionTask
from rudolph_jax.bulk.classify import ClassifyTask
from rudolph_jax.bulk.draw import DrawConfig, DrawTask
from rudolph_jax.bulk.models import fingerprint
from rudolph_jax.generation import GenerationConfig
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.sampling import IMAGE_SAMPLING, TEXT_SAMPLING
from rudolph_jax.text_encoding import TruncationWarning

SUFFIXES = {"caption": ".captions", "classify": ".classes"}
PIECE_ITEMS = {"draw": 100, "caption": 1000, "classify": 1000}


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """Adds the options of bulk work to one of the three commands."""
    group = parser.add_argument_group("many at once (docs/bulk.md)")
    if command == "draw":
        group.add_argument(
            "--prompts", type=any_path, metavar="FILE",
            help="draw each line of a text file, or of a column of .csv, .tsv, .jsonl or .parquet, "
            "into --out",
        )  # fmt: skip
        group.add_argument(
            "--column", default="", metavar="NAME",
            help="of --prompts (a usual name, such as prompt)",
        )  # fmt: skip
    else:
        group.add_argument(
            "--out", type=any_path, metavar="DIR",
            help=f"folder of the results for a folder, a .tar or a prepared set in place of images "
            f"(SOURCE{SUFFIXES[command]}); work that was begun in it is resumed",
        )  # fmt: skip
    group.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0],
        help="Parquet files, or .tar shards of images with results",
    )  # fmt: skip
    add_bulk_options(group, PIECE_ITEMS[command])


def is_bulk(args: argparse.Namespace) -> bool:
    """Returns whether the arguments name bulk work; InputError where they mix both forms."""
    if args.command == "draw":
        if args.prompts is None and args.text is None:
            raise InputError("draw: there is no text; give one, or --prompts=FILE")
        if args.prompts is not None and args.text is not None:
            raise InputError("draw: a text and --prompts are two ways to say what; leave one out")
        found = args.prompts is not None
    elif args.command in SUFFIXES:
        found = len(args.images) == 1 and (
            args.images[0].suffix == ".tar" or args.images[0].is_dir()
        )
    else:
        return False
    if not found:
        other = "column" if args.command == "draw" else "out"
        for name in ("part", other):
            if getattr(args, name):
                where = "with --prompts" if args.command == "draw" else (
                    "for one folder, .tar or prepared set"
                )  # fmt: skip
                raise InputError(f"{args.command}: --{name} is only {where}")
    return found


def run(rudolph: PretrainedRudolph, args: argparse.Namespace) -> None:
    """Does the bulk work that was asked for and prints its counts."""
    if args.part:
        Part.parse(args.part)
    settings: dict[str, Any] = {
        "command": args.command, "model": fingerprint(args.model),
        "vqgan": fingerprint(args.vqgan), "dtype": args.dtype, "weights": args.weights,
        "format": args.format,
    }  # fmt: skip
    makers = {"draw": _draw, "caption": _caption, "classify": _classify}
    task, source, out, others = makers[args.command](rudolph, args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # a line for each of millions
        run_from_options(args, task, source, out, settings | others)


Made = tuple[Task, Source, Path, dict[str, Any]]


def _draw(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Made:
    source = PromptFile(args.prompts, args.column)
    candidates = max(args.candidates, args.count)
    prompts = None
    if args.image:
        prompts = tasks.keep_borders(rudolph, args.image, cli_commands.parse_borders(args.keep))
    elif args.keep:
        raise InputError("--keep names borders of an image; give the image with --image=FILE")
    config = DrawConfig(_generation(args), args.count, candidates, args.guidance, prompts)
    ruclip = clip_jax.load(args.ruclip) if args.ruclip else None
    settings = _sampling(args) | {
        "guidance": args.guidance, "ruclip": None if ruclip is None else ruclip.content_hash,
        "image_prompts": None if prompts is None else prompts.tolist(),
    }  # fmt: skip
    task = DrawTask(rudolph, config, args.format == "webdataset", ruclip)
    return task, source, args.out, settings


def _caption(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Made:
    check_encodable(args.template)
    task = CaptionTask(
        rudolph, _generation(args), count=args.count, candidates=max(args.candidates, args.count),
        template=args.template, as_samples=args.format == "webdataset",
    )  # fmt: skip
    settings = _sampling(args) | {
        "template": args.template, "preprocessing": PREPROCESSING_VERSION
    }  # fmt: skip
    return task, *_images(args), settings


def _classify(rudolph: PretrainedRudolph, args: argparse.Namespace) -> Made:
    classes = cli_commands.parse_classes(args)
    task = ClassifyTask(
        rudolph, classes, template=args.template, left_template=args.left_template,
        batch_size=args.batch_size, as_samples=args.format == "webdataset",
    )  # fmt: skip
    settings = {
        "classes": classes, "template": args.template, "left_template": args.left_template,
        "preprocessing": PREPROCESSING_VERSION,
    }  # fmt: skip
    return task, *_images(args), settings


def _images(args: argparse.Namespace) -> tuple[Source, Path]:
    source = args.images[0]
    return open_images(source), args.out or out_beside(source, SUFFIXES[args.command])


def _generation(args: argparse.Namespace) -> GenerationConfig:
    usual = IMAGE_SAMPLING if args.command == "draw" else TEXT_SAMPLING
    sampling = usual.with_overrides(args.temperature, args.top_k, args.top_p)
    return GenerationConfig(sampling, args.seed, args.batch_size, quiet=True)


def _sampling(args: argparse.Namespace) -> dict[str, Any]:
    generation = _generation(args)
    return {
        "seed": generation.seed, "count": args.count, "candidates": args.candidates,
        **dataclasses.asdict(generation.sampling),
    }  # fmt: skip
