"""Measures the quickstart's RUDOLPH: images from prompts, captions, classes, inpainting."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip
from experiments.config.run import TrainConfig
from experiments.data import digits_ru
from experiments.data.emoji_ru import CATEGORY_WORDS
from experiments.data.source import open_split
from experiments.demos.candidates import TEMPERATURE, TOP_P, Candidates, draw_candidates
from experiments.demos.pixels import PixelClassifier
from experiments.demos.sections import (
    DemoResult,
    evenly_spaced,
    grid_section,
    loss_section,
    nats,
    score_table,
)
from experiments.demos.zero_shot import Rows, column, share
from experiments.evaluation.methods.reconstruction import Reconstruction, reconstruct
from experiments.evaluation.methods.sequence_losses import (
    bigram_loss,
    sequence_losses,
    unigram_loss,
)
from experiments.evaluation.report import figures
from experiments.evaluation.report.page import PngImage, Section, Table
from experiments.training.phases import Phases, with_progress
from rudolph_jax import tasks
from rudolph_jax.pretrained import PretrainedRudolph

SHOWN = 14  # images in a row
MOST_KNOWN = 3000  # training images, evenly spaced, that the classifier and baselines learn from
# Titles of the sections that a page begins with.
CHOSEN_DRAWINGS, FIRST_DRAWINGS = "Drawings, chosen by ruCLIP", "Drawings, the first that came"
FIRST = (CHOSEN_DRAWINGS,)


@dataclasses.dataclass(frozen=True)
class GenerationDemo:
    """Hold what differs between the data sets.

    split: that is measured on. most: rows of it at most, at even distances.
    label: the feature of the training split that drawings are classified by.
    classes: their Russian names, in order. template: of a caption of a class.
    prompts: of training rows, what is drawn, with the class of each.
    groups, each: drawings of a prompt, candidates for each when they are ranked.
    caption: of a row, what RUDOLPH should say; is_right: whether a written caption does.
    shown: places of the images whose captions are shown, by which are right.
    completed: places of the images that are inpainted, of the rows.
    drawn, written, classified: of the printed scores. classifier: what it does, for the page.
    """

    split: str
    most: int
    label: str
    classes: Sequence[str]
    template: str
    prompts: Callable[[Rows], tuple[list[str], list[int]]]
    groups: int
    each: int
    caption: Callable[[Mapping[str, Any]], str]
    is_right: Callable[[str, Mapping[str, Any]], bool]
    shown: Callable[[list[bool]], list[int]]
    completed: Callable[[Rows], list[int]]
    drawn: str
    written: str
    classified: str
    classifier: str


def _emoji_prompts(train: Rows, count: int = 20) -> tuple[list[str], list[int]]:
    chosen = [train[i] for i in np.linspace(0, len(train) - 1, count).astype(int)]
    return column(chosen, "caption"), column(chosen, "category")


def _emoji_completed(rows: Rows) -> list[int]:
    shown = evenly_spaced(len(rows), 64)
    return shown[:: max(len(shown) // 4, 1)][:4]


DIGITS = GenerationDemo(
    split="test",
    most=400,
    label="label",
    classes=digits_ru.NAMES,
    template=digits_ru.TEMPLATES[0],
    prompts=lambda train: (
        [digits_ru.TEMPLATES[0].format(name) for name in digits_ru.NAMES],
        list(range(len(digits_ru.NAMES))),
    ),
    groups=20,
    each=4,
    caption=lambda row: row["captions"][0],
    is_right=lambda text, row: digits_ru.NAMES[row["label"]] in text.split(),
    # Mistakes first: they tell more than another right answer.
    shown=lambda right: sorted(range(len(right)), key=lambda i: right[i])[:48],
    completed=lambda rows: [column(rows, "label").index(digit) for digit in (3, 5, 8)],
    drawn="drawings recognised",
    written="RUDOLPH's captions name the digit",
    classified="RUDOLPH classifies by perplexity",
    classifier="A support vector machine, trained on real images after the image tokenizer, names "
    "each drawing; right is the digit of the prompt.",
)
# Emoji of the split were trained on as another hand drew them.
EMOJI = GenerationDemo(
    split="new_drawing",
    most=400,
    label="category",
    classes=[titles[0] for titles in CATEGORY_WORDS.values()],
    template="{}",
    prompts=_emoji_prompts,
    groups=10,
    each=4,
    caption=lambda row: row["caption"],
    is_right=lambda text, row: text == row["caption"].lower(),
    shown=lambda right: evenly_spaced(len(right), 64),
    completed=_emoji_completed,
    drawn="drawings of the right category",
    written="RUDOLPH's captions are the very name",
    classified="RUDOLPH names the category by perplexity",
    classifier="A support vector machine, trained on the categories of real images after the image "
    "tokenizer, names each drawing's category; right is that of the name in the prompt.",
)


def evaluate(
    demo: GenerationDemo,
    rudolph: PretrainedRudolph,
    clip: PretrainedClip,
    config: TrainConfig,
    folder: Path,
    phase: Phases,
) -> DemoResult:
    """Draws, captions and classifies held-out images.

    config, folder: of RUDOLPH's run, beside the tokenizer's. phase: called with each phase's name.
    """
    phase("encoding and decoding images")
    train, rows = (list(open_split(config.data, split)) for split in ("train", demo.split))
    rows = [rows[i] for i in evenly_spaced(len(rows), demo.most)]
    train = [train[i] for i in evenly_spaced(len(train), MOST_KNOWN)]
    images, labels = column(rows, "image"), column(rows, demo.label)
    known = reconstruct(rudolph.vqgan, column(train, "image"), rudolph.image_size)
    held_out = reconstruct(rudolph.vqgan, images, rudolph.image_size)
    classifier = PixelClassifier(to_uint8(known.decoded), column(train, demo.label))
    prompts, classes = demo.prompts(train)
    predictor = Predictor(clip, ["{}"], quiet=True)
    phase(f"drawing {len(prompts) * demo.groups * demo.each:,} images")
    candidates = draw_candidates(rudolph, predictor, prompts, demo.groups, demo.each)

    def recognised(drawings: np.ndarray) -> float:
        return share(classifier.predict(drawings) == np.array(classes)[:, None])

    phase(f"captioning {len(images):,} images")
    captions = tasks.caption_images(rudolph, images, quiet=True)
    right = [demo.is_right(text, row) for text, row in zip(captions, rows, strict=True)]
    phase(f"classifying {len(images):,} images")
    predicted = [
        tasks.zs_clf(rudolph, image, demo.classes, r_template=demo.template)["label"]
        for image in with_progress(images, "classifying", sys.stdout)
    ]
    phase("measuring losses, inpainting")
    count, each = len(prompts) * demo.groups, demo.each
    drawn = {
        f"{count} {demo.drawn}, the first that came": recognised(candidates.first()),
        f"of {each} candidates each, chosen by RUDOLPH itself": recognised(
            candidates.best_by_self()
        ),
        f"of {each} candidates each, chosen by ruCLIP": recognised(candidates.best_by_ruclip()),
        "held-out images through the image tokenizer": share(
            classifier.predict(to_uint8(held_out.decoded)) == labels
        ),
    }
    read = {
        demo.written: share(right),
        demo.classified: share(np.array(predicted) == labels),
    }
    codes, vocabulary = (known.codes, held_out.codes), rudolph.config.image_vocab_size
    truth = [demo.caption(row) for row in rows]
    losses = {
        "RUDOLPH": sequence_losses(rudolph, images, truth)["image_loss"],
        "bigram model": bigram_loss(*codes, vocabulary),
        "unigram model": unigram_loss(*codes, vocabulary),
    }
    shown, completed = demo.shown(right), demo.completed(rows)
    page = [
        _reconstruction_section(held_out, vocabulary),
        Section("Drawn as the prompt says?", demo.classifier, score_table("drawings", drawn)),
        *_drawing_sections(candidates),
        grid_section(
            "What RUDOLPH writes under held-out images",
            "The likeliest words, after the image alone",
            "written-captions",
            [images[i] for i in shown],
            [captions[i] for i in shown],
            [right[i] for i in shown],
        ),
        _inpainting_section(
            rudolph, [images[i] for i in completed], [truth[i] for i in completed]
        ),
        _losses_section(losses),
        loss_section(folder.parent / "vqgan", "VQGAN", "reconstruction and divergence"),
        loss_section(folder, "RUDOLPH", "weighted cross-entropy"),
    ]
    phase.end()
    prefixed = {f"loss of a held-out code, {name}": value for name, value in losses.items()}
    return DemoResult(drawn | read, page, prefixed)


def _reconstruction_section(found: Reconstruction, codebook_size: int) -> Section:
    n, used = found.codes.shape[1], found.codebook_usage(codebook_size)
    shown = evenly_spaced(len(found.codes), SHOWN)
    png = figures.image_rows(
        [to_uint8(found.images[shown]), to_uint8(found.decoded[shown])],
        ["held-out image", f"decoded from {n} codes"],
    )
    return Section(
        f"Images as {n} codes out of {codebook_size}",
        f"The image tokenizer never saw these. Mean difference {found.absolute_error:.3f} of the "
        f"full range; {round(used * codebook_size)} codes are in use.",
        PngImage("reconstructions", png, "Images above what their codes are decoded to"),
    )


def _drawing_sections(candidates: Candidates) -> list[Section]:
    sections = []
    for title, file, drawings in (
        (FIRST_DRAWINGS, "drawings", candidates.first()),
        (CHOSEN_DRAWINGS, "drawings-reranked", candidates.best_by_ruclip()),
    ):
        rows = [list(row[:SHOWN]) for row in drawings[:SHOWN]]
        png = figures.image_rows(rows, candidates.prompts[:SHOWN])
        sections.append(Section(title, "", PngImage(file, png, "Rows of drawings by prompt")))
    return sections


def _inpainting_section(
    rudolph: PretrainedRudolph, images: Sequence[Any], prompts: Sequence[str]
) -> Section:
    """The upper half of each image stays, the lower is drawn by the model's own prompt."""
    rows = []
    half = rudolph.config.image_tokens_per_side // 2
    for seed, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        codes = tasks.generate_codebooks(
            rudolph, prompt, 8, image_prompts=tasks.keep_borders(rudolph, image, {"up": half}),
            temperature=TEMPERATURE, top_k=0, top_p=TOP_P, seed=seed, quiet=True,
        )  # fmt: skip
        whole = np.asarray(rudolph.decode_images(rudolph.encode_images([image]))[0])
        cut = whole.copy()
        cut[len(cut) // 2 :] = 128
        rows.append([whole, cut, *map(np.asarray, rudolph.decode_images(codes))])
    return Section(
        "Inpainting",
        "A held-out image, its upper half, and eight completions by the text at the left.",
        PngImage("inpainting", figures.image_rows(rows, prompts), "Completed images"),
    )


def _losses_section(losses: Mapping[str, float]) -> Section:
    rows = [(name, nats(value)) for name, value in losses.items()]
    return Section(
        "Surprise at the codes of held-out images",
        "Mean cross-entropy of a code. RUDOLPH has read the caption and the codes before; a "
        "unigram model knows how frequent a code is, a bigram model what follows the code before.",
        Table(("model", "loss"), rows),
    )


def to_uint8(images: np.ndarray) -> np.ndarray:
    """float32 from 0 to 1 -> uint8"""
    return np.rint(images * 255).astype(np.uint8)
