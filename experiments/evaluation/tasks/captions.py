"""evaluate captions: what RUDOLPH writes of images, against what people wrote."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

import numpy as np

from clip_jax.errors import InputError
from experiments.evaluation.clip_model import System
from experiments.evaluation.metrics.captions import caption_metrics
from experiments.evaluation.remarks import left_out
from experiments.evaluation.results import Result
from experiments.evaluation.rudolph_bench import Readable, RudolphBench
from experiments.evaluation.sets.captioned_set import CaptionedSet, open_captioned
from experiments.evaluation.tasks import options, rudolph_options
from experiments.evaluation.tasks.remarks import Remarks
from rudolph_jax import tasks

ABOUT, NAME = "caption pictures: BLEU, chrF, METEOR-like, CIDEr, ruCLIP score", "captions"


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
    rudolph_options.add_rudolph(parser, "embedded sets, or folders of experiments.prepare")
    rudolph_options.add_ruclip(parser, needed=False)
    add = parser.add_argument
    add("--template", default="", metavar="TEXT", help="how captions begin (nothing)")
    add("--candidates", type=int, default=1, metavar="N",
        help="to sample and rank for each picture; 1: one of the likeliest tokens (1)")
    add("--seed", type=int, default=0, metavar="N", help="of samples (0)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    bench, clip = rudolph_options.bench(args), rudolph_options.ruclip(args)
    remarks = Remarks()
    writing = Writing(args.template, args.candidates, args.seed)
    for name in options.set_names(args):
        pictures = open_captioned(name, args.test_split, args.data_dir)
        result = measure_set(bench, pictures, writing, clip)
        numbers = {k: v for k, v in result.items() if isinstance(v, float)}
        found = ", ".join(f"{key} {value:.4f}" for key, value in numbers.items())
        options.say(
            f"{bench.name}  {name}: {found}, {result['examples']} pictures{left_out(result)}"
        )
        remarks.say(bench.name, result)
    options.say(f"results: {bench.folder / NAME}")
    remarks.finish()


def measure_set(
    bench: RudolphBench,
    pictures: CaptionedSet,
    writing: Writing = Writing(),
    clip: System | None = None,
) -> Result:
    """See `caption_metrics`; clip adds "ruclip_score", the mean cosine of captions and pictures,
    and "ruclip_score_of_references", that of the first of what people wrote.
    """
    asked = {
        **bench.about(pictures),
        "writing": dataclasses.asdict(writing),
        "ruclip": clip and clip.about(),
    }
    made = {key: value for key, value in asked.items() if key != "ruclip"}

    def work(readable: Readable) -> Result:
        shown = readable.examples
        captions = bench.chunks(
            "captions", made, readable, lambda rows: _write(bench, shown, writing, rows)
        ).tolist()
        references = shown.captions
        found = caption_metrics(captions, references)
        if clip is not None:
            latents = bench.chunks(
                "picture latents",
                asked,
                readable,
                lambda rows: clip.image_latents(shown.pictures[rows]),
            )
            found["ruclip_score"] = mean_cosine(clip, captions, latents)
            first = [several[0] for several in references]
            found["ruclip_score_of_references"] = mean_cosine(clip, first, latents)
        written = [
            {"key": key, "caption": caption}
            for key, caption in zip(shown.keys, captions, strict=True)
        ]
        return {**found, "captions": written}

    return bench.kept(NAME, pictures, asked, work)


def mean_cosine(clip: System, texts: Sequence[str], pictures: np.ndarray) -> float:
    """Of texts and the unit rows float32[N, E] of their pictures."""
    return float((clip.text_latents(texts) * pictures).sum(axis=1).mean())


def _write(
    bench: RudolphBench, pictures: CaptionedSet, writing: Writing, rows: slice
) -> np.ndarray:
    """str[rows]: captions without the template."""
    rudolph, images, template = bench.rudolph, pictures.pictures[rows], writing.template
    if writing.candidates == 1:
        texts = tasks.caption_images(
            rudolph, images, r_template=template, batch_size=bench.batch_size, quiet=True
        )
    else:
        ranked = [
            tasks.image_captioning(
                rudolph, image, 1, generations_num=writing.candidates, r_template=template,
                batch_size=bench.batch_size, seed=writing.seed + place, quiet=True,
            )
            for place, image in enumerate(images, start=rows.start)
        ]  # fmt: skip
        texts = [best[0]["text"] if best else "" for best in ranked]
    start = template.lower().strip()
    return np.array([text.removeprefix(start).strip() for text in texts])
