"""evaluate figure: cosines of eight pictures and eight captions, as the ruCLIP report shows."""

from __future__ import annotations

import argparse

import jax
import numpy as np

from clip_jax.config import WHITE
from clip_jax.image import centre_square, open_image
from experiments.atomic import replace_file
from experiments.evaluation.bench import Bench, Result
from experiments.evaluation.samples import open_samples
from experiments.evaluation.tasks import options

ABOUT, NAME = "cosines of scikit-image's pictures and captions, as a matrix", "figure"
SIDE = 128  # of the pictures beside the matrix, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_systems(parser)


def run(args: argparse.Namespace) -> None:
    for bench in options.benches(args):
        result = measure_samples(bench)
        cosines = np.asarray(result["cosines"])
        first = int((cosines.argmax(axis=1) == np.arange(len(cosines))).sum())
        file = bench.folder / NAME / "similarity.png"
        if jax.process_index() == 0:
            replace_file(file, draw(result))
        options.say(f"{bench.name}  right caption first: {first} of {len(cosines)}; {file}")


def measure_samples(bench: Bench) -> Result:
    """cosines: float[8, 8], pictures by captions."""
    samples = open_samples(bench.encoder.system.language)
    captions = [several[0] for several in samples.captions]
    asked = {**bench.about(samples), "pictures": list(samples.keys), "captions": captions}

    def work() -> Result:
        texts = bench.encoder.classes([[caption] for caption in captions])
        return {"cosines": (bench.encoder.images(samples) @ texts.T).tolist()}

    return bench.kept(NAME, samples.name, asked, work)


def draw(result: Result) -> bytes:
    figures = options.drawing()
    samples = open_samples(result["system"]["language"])
    pictures = [
        np.asarray(centre_square(open_image(file), WHITE).resize((SIDE, SIDE)))
        for file in samples.pictures
    ]
    return figures.similarity_matrix(np.asarray(result["cosines"]), pictures, result["captions"])

