"""The parts of a page about RUDOLPH and its image tokenizer, the same for every data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.demos.generation import TEMPERATURE, TOP_P, Drawings
from experiments.demos.outcome import nats, score_table
from experiments.evaluation.methods.reconstruction import Reconstruction
from experiments.evaluation.report import figures
from experiments.evaluation.report.page import Picture, Section, Table
from rudolph_jax import tasks
from rudolph_jax.pretrained import PretrainedRudolph

SHOWN = 14  # images in a row


def reconstruction_section(found: Reconstruction, codebook_size: int) -> Section:
    n, used = found.codes.shape[1], found.codebook_usage(codebook_size)
    shown = np.linspace(0, len(found.codes) - 1, min(SHOWN, len(found.codes))).astype(int)
    png = figures.picture_rows(
        [as_bytes(found.pictures[shown]), as_bytes(found.decoded[shown])],
        ["held-out picture", f"painted from {n} codes"],
    )
    return Section(
        f"Pictures as {n} codes out of {codebook_size}",
        f"The image tokenizer never saw these. Mean difference {found.absolute_error:.3f} of the "
        f"full range; {round(used * codebook_size)} codes are in use.",
        Picture("reconstructions", png, "Pictures above what their codes are decoded to"),
    )


def drawing_sections(drawings: Drawings, scores: Mapping[str, float], judged: str) -> list[Section]:
    """judged: what the classifier does, for the table's note."""
    return [
        Section("Drawn as asked?", judged, score_table("drawings", scores)),
        _drawn("Drawings, the first that came", "drawings", drawings.prompts, drawings.first()),
        _drawn(
            "Drawings, chosen by ruCLIP",
            "drawings-reranked",
            drawings.prompts,
            drawings.best_by_ruclip(),
        ),
    ]


def captions_section(
    pictures: Sequence[np.ndarray], captions: Sequence[str], right: Sequence[bool]
) -> Section:
    png = figures.picture_grid(pictures, captions, right)
    return Section(
        "What RUDOLPH writes under held-out pictures",
        "The likeliest words, after the picture alone; green is right, red is wrong.",
        Picture("written-captions", png, "Grid of pictures with captions"),
    )


def inpainting_section(
    rudolph: PretrainedRudolph, images: Sequence[Any], prompts: Sequence[str], seed: int = 0
) -> Section:
    """The upper half of each image is kept, the lower drawn anew, by the model's own prompt."""
    rows = []
    half = rudolph.config.image_tokens_per_side // 2
    for number, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        kept = tasks.keep_borders(rudolph, image, {"up": half})
        codes = tasks.generate_codebooks(
            rudolph,
            prompt,
            8,
            image_prompts=kept,
            temperature=TEMPERATURE,
            top_k=0,
            top_p=TOP_P,
            seed=seed + number,
            quiet=True,
        )
        whole = rudolph.decode_images(rudolph.encode_images([image]))[0]
        cut = np.array(whole)
        cut[len(cut) // 2 :] = 128
        drawn = [np.asarray(picture) for picture in rudolph.decode_images(codes)]
        rows.append([np.asarray(whole), cut, *drawn])
    return Section(
        "Inpainting",
        "A held-out picture, what is kept of it, and eight ways to go on with the text at the "
        "left.",
        Picture("inpainting", figures.picture_rows(rows, prompts), "Completed pictures"),
    )


def losses_section(losses: Mapping[str, float]) -> Section:
    rows = [(name, nats(value)) for name, value in losses.items()]
    return Section(
        "Surprise at the codes of held-out pictures",
        "Mean cross-entropy of a code. RUDOLPH has read the caption and the codes before; a "
        "unigram model knows how frequent a code is, a bigram model what follows the code before.",
        Table(("model", "loss"), rows),
    )


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """float32 from 0 to 1 -> uint8"""
    return np.rint(pictures * 255).astype(np.uint8)


def _drawn(title: str, name: str, prompts: Sequence[str], pictures: np.ndarray) -> Section:
    """pictures: uint8[prompts, groups, H, W, 3]"""
    rows = [list(row[:SHOWN]) for row in pictures[:SHOWN]]
    png = figures.picture_rows(rows, list(prompts)[:SHOWN])
    return Section(title, "", Picture(name, png, "Rows of drawings by prompt"))
