"""evaluate drawing: what RUDOLPH draws from captions, beside the images that they are of."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from clip_jax.atomic_file import replace_file
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.image_features import FEATURES
from experiments.evaluation.metrics import frechet
from experiments.evaluation.rudolph_model import RudolphModel
from experiments.evaluation.run import EvalRun, Result
from experiments.evaluation.sets.captioned_set import CaptionedSet, open_captioned
from experiments.evaluation.tasks import options
from experiments.evaluation.tasks.captions import mean_cosine
from experiments.evaluation.unreadable import ReadableExamples
from rudolph_jax import tasks
from rudolph_jax.png_files import contact_sheet, png_bytes
from rudolph_jax.sampling import IMAGE_SAMPLING, SamplingParams

ABOUT, NAME = "draw from captions: ruCLIP score, Frechet distance", "drawing"
SHOWN = 64  # drawings on the contact sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_rudolph(parser, "built-in sets, or folders of experiments.prepare")
    options.add_ruclip(parser, needed=True)
    add, usual = parser.add_argument, IMAGE_SAMPLING
    add("--features", choices=FEATURES, default="pre",
        help="of the ruCLIP's image tower, for the Frechet distance: before its projection (pre), "
        "or after it, of unit length")
    add("--temperature", type=float, default=usual.temperature, metavar="T",
        help=f"({usual.temperature})")
    add("--top-k", type=int, default=usual.top_k, metavar="N", help=f"({usual.top_k}), 0: off")
    add("--top-p", type=float, default=usual.top_p, metavar="P", help=f"({usual.top_p}), 1: off")
    add("--seed", type=int, default=0, metavar="N", help="of the drawings (0)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    clip, sampling = options.ruclip(args), SamplingParams(args.temperature, args.top_k, args.top_p)

    def lines(name: str, result: Result) -> list[str]:
        return [
            f"{name}: ruCLIP score {result['ruclip_score']:.4f} (of the images "
            f"{result['ruclip_score_of_pictures']:.4f}), Frechet distance "
            f"{result['frechet']:.4f} (of their reconstructions "
            f"{result['frechet_of_reconstructions']:.4f}), {result['examples']} drawings"
        ]

    def measure(run: EvalRun[RudolphModel], name: str) -> Result:
        images = open_captioned(name, args.test_split, args.data_dir)
        return measure_set(run, images, clip, sampling, args.seed, args.features)

    options.measure_sets([options.rudolph_run(args)], args, measure, lines, NAME)


def measure_set(
    run: EvalRun[RudolphModel],
    examples: CaptionedSet,
    clip: ClipModel,
    sampling: SamplingParams = IMAGE_SAMPLING,
    seed: int = 0,
    features: str = "pre",
) -> Result:
    """Generate one image from the first caption of each image, and measure it.

    {"ruclip_score", "ruclip_score_of_pictures": mean cosines with the captions; "frechet",
    "frechet_of_reconstructions": distances from the images, the latter of what the image
    tokenizer makes of them; "frechet_is_biased": see `frechet.Gaussian.too_few`}.
    """
    drawn_by = {**run.metadata(examples), "sampling": dataclasses.asdict(sampling), "seed": seed}
    inputs = {**drawn_by, "ruclip": clip.metadata(), "features": features}
    rudolph = run.model.rudolph

    def compute(readable: ReadableExamples) -> Result:
        images = readable.examples.images
        captions = [several[0] for several in readable.examples.captions]
        drawn = run.cached_map(
            "drawings",
            drawn_by,
            readable,
            lambda rows: tasks.draw_texts(
                rudolph, captions[rows], temperature=sampling.temperature, top_k=sampling.top_k,
                top_p=sampling.top_p, seed=seed, batch_size=run.model.batch_size,
                first_text=rows.start, quiet=True,
            ),
        )  # fmt: skip
        seen = {
            "drawings": lambda rows: rudolph.decode_images(drawn[rows]),
            "images": lambda rows: images[rows],
            "reconstructions": lambda rows: rudolph.decode_images(
                rudolph.encode_images(images[rows])
            ),
        }

        def tower(what: str, kind: str) -> np.ndarray:
            encode = clip.image_latents if kind == "post" else clip.image_features
            title = f"features of {what}, {kind}"
            return run.cached_map(title, inputs, readable, lambda rows: encode(seen[what](rows)))

        fitted = {what: frechet.fit(tower(what, features)) for what in seen}
        if run.folder is not None:
            sheet = contact_sheet(rudolph.decode_images(drawn[:SHOWN]))
            name = f"{examples.name.rsplit('/', 1)[-1]}-{examples.split}.png"
            replace_file(run.folder / NAME / name, png_bytes(sheet))
        return {
            "ruclip_score": mean_cosine(clip, captions, tower("drawings", "post")),
            "ruclip_score_of_pictures": mean_cosine(clip, captions, tower("images", "post")),
            "frechet": frechet.frechet_distance(fitted["images"], fitted["drawings"]),
            "frechet_of_reconstructions": frechet.frechet_distance(
                fitted["images"], fitted["reconstructions"]
            ),
            "frechet_is_biased": fitted["images"].too_few,
            "captions": captions,
        }

    return run.cached_on_readable(NAME, examples, inputs, compute)
