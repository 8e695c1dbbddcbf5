"""evaluate captions: what RUDOLPH writes of images, against what people wrote."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np

from clip_jax.errors import InputError
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.metrics.captions import caption_metrics
from experiments.evaluation.rudolph_model import RudolphModel
from experiments.evaluation.run import EvalRun, Result
from experiments.evaluation.sets.captioned_set import CaptionedSet, open_captioned
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import ReadableExamples
from rudolph_jax import tasks

ABOUT, NAME = "caption images: BLEU, chrF, METEOR-like, CIDEr, ruCLIP score", "captions"


@dataclasses.dataclass(frozen=True)
class Writing:
    """template: how captions begin; it is taken off again. candidates: 1 writes the likeliest
    tokens; more are sampled by the seed, and the model's own ranking keeps one.
    """

    template: str = ""
    candidates: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise InputError(f"candidates are {self.candidates}; expected at least 1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_rudolph(parser, "built-in sets, or folders of experiments.prepare")
    options.add_ruclip(parser, needed=False)
    add = parser.add_argument
    add("--template", default="", metavar="TEXT", help="how captions begin (nothing)")
    add("--candidates", type=int, default=1, metavar="N",
        help="to sample and rank for each image; 1: one of the likeliest tokens (1)")
    add("--seed", type=int, default=0, metavar="N", help="of samples (0)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    clip, writing = options.ruclip(args), Writing(args.template, args.candidates, args.seed)

    def lines(name: str, result: Result) -> list[str]:
        numbers = {k: v for k, v in result.items() if isinstance(v, float)}
        found = ", ".join(f"{key} {value:.4f}" for key, value in numbers.items())
        return [f"{name}: {found}, {result['examples']} images"]

    def measure(run: EvalRun[RudolphModel], name: str) -> Result:
        images = open_captioned(name, args.test_split, args.data_dir)
        return measure_set(run, images, writing, clip)

    options.measure_sets([options.rudolph_run(args)], args, measure, lines, NAME)


def measure_set(
    run: EvalRun[RudolphModel],
    examples: CaptionedSet,
    writing: Writing = Writing(),
    clip: ClipModel | None = None,
) -> Result:
    """Scores captions of all images: see `caption_metrics`.

    clip: adds "ruclip_score", the mean cosine of captions and images, and
        "ruclip_score_of_references", that of the first of what people wrote.
    """
    written_by = {**run.metadata(examples), "writing": dataclasses.asdict(writing)}
    inputs = {**written_by, "ruclip": clip and clip.metadata()}

    def compute(readable: ReadableExamples) -> Result:
        images, references = readable.examples.images, readable.examples.captions
        captions = run.cached_map(
            "captions", written_by, readable, lambda rows: _write(run.model, images, writing, rows)
        ).tolist()
        found = caption_metrics(captions, references)
        if clip is not None:
            latents = run.cached_map(
                "image latents", inputs, readable, lambda rows: clip.image_latents(images[rows])
            )
            found["ruclip_score"] = mean_cosine(clip, captions, latents)
            first = [several[0] for several in references]
            found["ruclip_score_of_references"] = mean_cosine(clip, first, latents)
        written = [
            {"key": key, "caption": caption}
            for key, caption in zip(readable.examples.keys, captions, strict=True)
        ]
        return {**found, "captions": written}

    return run.cached_on_readable(NAME, examples, inputs, compute)


def mean_cosine(clip: ClipModel, texts: Sequence[str], images: np.ndarray) -> float:
    """Mean cosine of texts and the unit rows float32[N, E] of their images."""
    return float((clip.text_latents(texts) * images).sum(axis=1).mean())


def _write(
    model: RudolphModel, all_images: Sequence[bytes], writing: Writing, rows: slice
) -> np.ndarray:
    """str[rows]: captions without the template."""
    images, template = all_images[rows], writing.template
    if writing.candidates == 1:
        texts = tasks.caption_images(
            model.rudolph, images, r_template=template, batch_size=model.batch_size, quiet=True
        )
    else:
        ranked = [
            tasks.image_captioning(
                model.rudolph, image, 1, generations_num=writing.candidates, r_template=template,
                batch_size=model.batch_size, seed=writing.seed + place, quiet=True,
            )
            for place, image in enumerate(images, start=rows.start)
        ]  # fmt: skip
        texts = [best[0]["text"] if best else "" for best in ranked]
    start = template.lower().strip()
    return np.array([text.removeprefix(start).strip() for text in texts])
