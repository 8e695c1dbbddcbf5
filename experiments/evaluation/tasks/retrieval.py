"""evaluate retrieval: an image's captions among all of a split, and a caption's images."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.methods.retrieval import number, retrieve_both
from experiments.evaluation.run import EvalRun, Result, set_title
from experiments.evaluation.sets import open_captioned
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import listed

ABOUT, NAME = "find captions of images and images of captions", "retrieval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)
    add = parser.add_argument
    add("--sets", required=True, metavar="NAME,...",
        help="built-in sets, or folders that python -m experiments.prepare made")
    add("--test-split", default="test", metavar="NAME", help="to measure on (test)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    def lines(_: str, result: Result) -> list[str]:
        ways = {way: result[way].items() for way in ("image_to_text", "text_to_image")}
        return [
            f"{result['set']} {way}: " + "  ".join(f"{key} {value:.4f}" for key, value in recalls)
            for way, recalls in ways.items()
        ]

    options.measure_sets(
        options.clip_runs(args),
        args,
        lambda run, name: measure_set(run, name, args.test_split),
        lines,
        NAME,
    )


def measure_set(run: EvalRun[ClipModel], name: str, split: str) -> Result:
    """Recall at 1, 5 and 10 both ways, of the readable images and their captions.

    A set without captions raises InputError.
    """
    images = open_captioned(name, split, run.data_dir)

    def compute() -> Result:
        features = run.model.set_features(images)
        readable = images.at(features.readable.tolist())
        captions = number(readable.captions)
        texts = run.model.class_latents([[text] for text in captions.texts])
        found = retrieve_both(features.values[features.readable], texts, captions)
        return {
            "pictures": len(readable),
            "captions": sum(map(len, readable.captions)),
            "different_captions": len(captions.texts),
            "images": len(images),
            "unreadable": listed(images, features.unreadable),
            **found.recalls(),
        }

    inputs = {**run.metadata(images), "title": set_title(images.name)}
    return run.cached_result(NAME, f"{Path(name).name}-{split}", inputs, [images], compute)
