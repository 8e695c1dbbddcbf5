"""evaluate drawing: what RUDOLPH draws from captions, beside the images that they are of."""

from __future__ import annotations

import argparse
import dataclasses

import numpy as np

from clip_jax.atomic_file import replace_file
from experiments.evaluation.clip_model import System
from experiments.evaluation.image_features import KINDS
from experiments.evaluation.metrics import frechet
from experiments.evaluation.remarks import left_out
from experiments.evaluation.results import Result
from experiments.evaluation.rudolph_bench import Readable, RudolphBench
from experiments.evaluation.sets.captioned_set import CaptionedSet, open_captioned
from experiments.evaluation.tasks import options, rudolph_options
from experiments.evaluation.tasks.captions import mean_cosine
from experiments.evaluation.tasks.remarks import Remarks
from rudolph_jax import tasks
from rudolph_jax.png_files import contact_sheet, png_bytes
from rudolph_jax.sampling import IMAGE_SAMPLING, Sampling

ABOUT, NAME = "draw from captions: ruCLIP score, Frechet distance", "drawing"
SHOWN = 64  # drawings on the contact sheet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    rudolph_options.add_rudolph(parser, "embedded sets, or folders of experiments.prepare")
    rudolph_options.add_ruclip(parser, needed=True)
    add, usual = parser.add_argument, IMAGE_SAMPLING
    add(
        "--features",
        choices=KINDS,
        default="pre",
        help="of the ruCLIP's image tower, for the Frechet distance: before its projection (pre), "
        "or after it, of unit length",
    )
    add(
        "--temperature",
        type=float,
        default=usual.temperature,
        metavar="T",
        help=f"({usual.temperature})",
    )
    add("--top-k", type=int, default=usual.top_k, metavar="N", help=f"({usual.top_k}), 0: off")
    add("--top-p", type=float, default=usual.top_p, metavar="P", help=f"({usual.top_p}), 1: off")
    add("--seed", type=int, default=0, metavar="N", help="of the drawings (0)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    bench, clip = rudolph_options.bench(args), rudolph_options.ruclip(args)
    remarks = Remarks()
    sampling = Sampling(args.temperature, args.top_k, args.top_p)
    for name in options.set_names(args):
        pictures = open_captioned(name, args.test_split, args.data_dir)
        result = measure_set(bench, pictures, clip, sampling, args.seed, args.features)
        options.say(
            f"{bench.name}  {name}: ruCLIP score {result['ruclip_score']:.4f} (of the pictures "
            f"{result['ruclip_score_of_pictures']:.4f}), Frechet distance "
            f"{result['frechet']:.4f} (of their reconstructions "
            f"{result['frechet_of_reconstructions']:.4f}), {result['examples']} drawings"
            f"{left_out(result)}"
        )
        remarks.say(bench.name, result)
    options.say(f"results: {bench.folder / NAME}")
    remarks.finish()


def measure_set(
    bench: RudolphBench,
    pictures: CaptionedSet,
    clip: System,
    sampling: Sampling = IMAGE_SAMPLING,
    seed: int = 0,
    features: str = "pre",
) -> Result:
    """One drawing from the first caption of each picture.

    {"ruclip_score", "ruclip_score_of_pictures": mean cosines with the captions; "frechet",
    "frechet_of_reconstructions": distances from the pictures, the latter of what the image
    tokenizer makes of them; "frechet_is_biased": see `frechet.Gaussian.too_few`}.
    """
    about = {**bench.about(pictures), "sampling": dataclasses.asdict(sampling), "seed": seed}
    asked = {**about, "ruclip": clip.about(), "features": features}
    rudolph = bench.rudolph

    def work(readable: Readable) -> Result:
        shown = readable.examples
        captions = [several[0] for several in shown.captions]
        drawn = bench.chunks(
            "drawings",
            about,
            readable,
            lambda rows: tasks.draw_texts(
                rudolph, captions[rows], temperature=sampling.temperature, top_k=sampling.top_k,
                top_p=sampling.top_p, seed=seed, batch_size=bench.batch_size,
                first_text=rows.start, quiet=True,
            ),
        )  # fmt: skip
        seen = {
            "drawings": lambda rows: rudolph.decode_images(drawn[rows]),
            "pictures": lambda rows: shown.pictures[rows],
            "reconstructions": lambda rows: rudolph.decode_images(
                rudolph.encode_images(shown.pictures[rows])
            ),
        }

        def tower(what: str, kind: str) -> np.ndarray:
            encode = clip.image_latents if kind == "post" else clip.image_features
            title = f"features of {what}, {kind}"
            return bench.chunks(title, asked, readable, lambda rows: encode(seen[what](rows)))

        fitted = {what: frechet.fit(tower(what, features)) for what in seen}
        if bench.folder is not None:
            sheet = contact_sheet(rudolph.decode_images(drawn[:SHOWN]))
            name = f"{pictures.name.rsplit('/', 1)[-1]}-{pictures.split}.png"
            replace_file(bench.folder / NAME / name, png_bytes(sheet))
        return {
            "ruclip_score": mean_cosine(clip, captions, tower("drawings", "post")),
            "ruclip_score_of_pictures": mean_cosine(clip, captions, tower("pictures", "post")),
            "frechet": frechet.frechet_distance(fitted["pictures"], fitted["drawings"]),
            "frechet_of_reconstructions": frechet.frechet_distance(
                fitted["pictures"], fitted["reconstructions"]
            ),
            "frechet_is_biased": fitted["pictures"].too_few,
            "captions": captions,
        }

    return bench.kept(NAME, pictures, asked, work)
