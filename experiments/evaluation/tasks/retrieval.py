"""evaluate retrieval: an image's captions among all of a split, and a caption's pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.evaluation.bench import Bench, Result
from experiments.evaluation.methods.retrieval import number, retrieve_both
from experiments.evaluation.remarks import left_out
from experiments.evaluation.sets.captioned_set import open_captioned
from experiments.evaluation.tasks import options
from experiments.evaluation.tasks.remarks import Remarks
from experiments.evaluation.unreadable import listed

ABOUT, NAME = "find captions of pictures and pictures of captions", "retrieval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_systems(parser)
    add = parser.add_argument
    add("--sets", required=True, metavar="NAME,...",
        help="embedded sets, or folders that python -m experiments.prepare made")
    add("--test-split", default="test", metavar="NAME", help="to measure on (test)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    remarks = Remarks()
    for bench in options.benches(args):
        for name in options.set_names(args):
            result = measure_set(bench, name, args.test_split)
            for way in ("image_to_text", "text_to_image"):
                found = "  ".join(f"{key} {value:.4f}" for key, value in result[way].items())
                options.say(f"{bench.name}  {result['set']} {way}: {found}{left_out(result)}")
            remarks.say(bench.name, result)
        options.say(f"results: {bench.folder / NAME}")
    remarks.finish()


def measure_set(bench: Bench, name: str, split: str) -> Result:
    """Recall at 1, 5 and 10 both ways, of the readable images and their captions.

    A set without captions raises InputError.
    """
    pictures = open_captioned(name, split, bench.data_dir)
    asked = bench.about(pictures)

    def work() -> Result:
        features = bench.encoder.images(pictures)
        readable = pictures.at(features.readable.tolist())
        captions = number(readable.captions)
        texts = bench.encoder.classes([[text] for text in captions.texts])
        found = retrieve_both(features.values[features.readable], texts, captions)
        return {
            "pictures": len(readable),
            "captions": sum(map(len, readable.captions)),
            "different_captions": len(captions.texts),
            "images": len(pictures),
            "unreadable": listed(pictures, features.unreadable),
            **found.recalls(),
        }

    file = f"{Path(name).name}-{split}"
    return bench.kept(NAME, file, asked, [pictures], work)
