"""evaluate figure: cosines of eight images and eight captions, as the ruCLIP report shows."""

from __future__ import annotations

import argparse

import jax
import numpy as np

from clip_jax.atomic_file import replace_file
from clip_jax.config import WHITE
from clip_jax.image import center_crop_square, open_image
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.console import print_line
from experiments.evaluation.remarks import Remarks, left_out
from experiments.evaluation.run import EvalRun, Result, set_title
from experiments.evaluation.sample_images import open_samples
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import listed

ABOUT, NAME = "cosines of scikit-image's images and captions, as a matrix", "figure"
SIDE = 128  # of the images beside the matrix, in pixels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)


def run(args: argparse.Namespace) -> None:
    remarks = Remarks()
    for run in options.clip_runs(args):
        result = measure_samples(run)
        cosines = np.asarray(result["cosines"])
        first = int((cosines.argmax(axis=1) == np.arange(len(cosines))).sum())
        file = run.folder / NAME / "similarity.png"
        if jax.process_index() == 0:
            replace_file(file, draw(result))
        found = f"right caption first: {first} of {len(cosines)}{left_out(result)}"
        print_line(f"{run.name}  {found}; {file}")
        remarks.print(run.name, result)
    remarks.finish()


def measure_samples(run: EvalRun[ClipModel]) -> Result:
    """cosines: float[N, N], readable images, eight if all are, by their captions."""
    samples = open_samples(run.model.language)
    inputs = {
        **run.metadata(samples),
        "title": set_title(samples.name),
        "samples": list(samples.keys),
    }

    def compute() -> Result:
        features = run.model.set_features(samples)
        readable = samples.at(features.readable.tolist())
        captions = [several[0] for several in readable.captions]
        texts = run.model.class_latents([[caption] for caption in captions])
        return {
            "pictures": list(readable.keys),
            "captions": captions,
            "images": len(samples),
            "unreadable": listed(samples, features.unreadable),
            "cosines": (features.values[features.readable] @ texts.T).tolist(),
        }

    return run.cached_result(NAME, samples.name, inputs, [samples], compute)


def draw(result: Result) -> bytes:
    figures = options.load_figures()
    samples = open_samples(result["system"]["language"])
    images = [
        np.asarray(center_crop_square(open_image(samples.image(place)), WHITE).resize((SIDE, SIDE)))
        for place in map(samples.keys.index, result["pictures"])
    ]
    return figures.similarity_matrix(np.asarray(result["cosines"]), images, result["captions"])
