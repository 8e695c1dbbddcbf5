"""evaluate figure: cosines of eight images and eight captions, as the ruCLIP report shows."""

from __future__ import annotations

import argparse

import jax
import numpy as np

from clip_jax.atomic_file import replace_file
from clip_jax.config import WHITE
from clip_jax.image import centre_square, open_image
from experiments.evaluation.bench import Bench, Result
from experiments.evaluation.remarks import left_out
from experiments.evaluation.sample_images import open_samples
from experiments.evaluation.tasks import options
from experiments.evaluation.tasks.remarks import Remarks
from experiments.evaluation.unreadable import listed

ABOUT, NAME = "cosines of scikit-image's pictures and captions, as a matrix", "figure"
SIDE = 128  # of the images beside the matrix, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_systems(parser)


def run(args: argparse.Namespace) -> None:
    remarks = Remarks()
    for bench in options.benches(args):
        result = measure_samples(bench)
        cosines = np.asarray(result["cosines"])
        first = int((cosines.argmax(axis=1) == np.arange(len(cosines))).sum())
        file = bench.folder / NAME / "similarity.png"
        if jax.process_index() == 0:
            replace_file(file, draw(result))
        options.say(
            f"{bench.name}  right caption first: {first} of {len(cosines)}{left_out(result)}; "
            f"{file}"
        )
        remarks.say(bench.name, result)
    remarks.finish()


def measure_samples(bench: Bench) -> Result:
    """cosines: float[N, N], readable images, eight if all are, by their captions."""
    samples = open_samples(bench.encoder.system.language)
    asked = {**bench.about(samples), "samples": list(samples.keys)}

    def work() -> Result:
        features = bench.encoder.images(samples)
        readable = samples.at(features.readable.tolist())
        captions = [several[0] for several in readable.captions]
        texts = bench.encoder.classes([[caption] for caption in captions])
        return {
            "pictures": list(readable.keys),
            "captions": captions,
            "images": len(samples),
            "unreadable": listed(samples, features.unreadable),
            "cosines": (features.values[features.readable] @ texts.T).tolist(),
        }

    return bench.kept(NAME, samples.name, asked, [samples], work)


def draw(result: Result) -> bytes:
    figures = options.drawing()
    samples = open_samples(result["system"]["language"])
    pictures = [
        np.asarray(centre_square(open_image(samples.image(place)), WHITE).resize((SIDE, SIDE)))
        for place in map(samples.keys.index, result["pictures"])
    ]
    return figures.similarity_matrix(np.asarray(result["cosines"]), pictures, result["captions"])
