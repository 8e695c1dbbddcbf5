"""Handwritten digits: drawn from Russian prompts, captioned, told apart, completed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_jax import Predictor, PretrainedClip
from clip_jax.image import open_image
from experiments.config.run import TrainConfig
from experiments.data.digits_ru import NAMES, TEMPLATES
from experiments.data.source import open_split
from experiments.demos import drawing_sections as sections
from experiments.demos.generation import Judge, draw
from experiments.demos.outcome import Outcome, loss_section
from experiments.evaluation.methods.reconstruction import reconstruct
from experiments.evaluation.methods.sequence_losses import (
    bigram_loss,
    sequence_losses,
    unigram_loss,
)
from rudolph_jax import tasks
from rudolph_jax.pretrained import PretrainedRudolph

PROMPT = TEMPLATES[0]
GROUPS, EACH = 20, 4  # drawings of each digit, candidates for each when they are ranked


def evaluate(
    rudolph: PretrainedRudolph, clip: PretrainedClip, config: TrainConfig, folder: Path
) -> Outcome:
    """Measured on the split "test". config, folder: of RUDOLPH's run, beside the tokenizer's."""
    train, test = (list(open_split(config.data, split)) for split in ("train", "test"))
    images, labels = [row["image"] for row in test], [row["label"] for row in test]
    known = reconstruct(rudolph.vqgan, [row["image"] for row in train], rudolph.image_size)
    held_out = reconstruct(rudolph.vqgan, images, rudolph.image_size)
    judge = Judge(sections.as_bytes(known.decoded), [row["label"] for row in train])
    prompts = [PROMPT.format(name) for name in NAMES]
    drawings = draw(rudolph, Predictor(clip, ["{}"], quiet=True), prompts, GROUPS, EACH)
    asked = np.arange(len(NAMES))[:, None]
    captions = tasks.caption_images(rudolph, images, quiet=True)
    right = [NAMES[label] in text.split() for label, text in zip(labels, captions, strict=True)]
    told = [tasks.zs_clf(rudolph, image, NAMES, r_template=PROMPT)["label"] for image in images]
    total = len(NAMES) * GROUPS
    drawn = {
        f"{total} drawings recognised, the first that came": _share(
            judge.name(drawings.first()) == asked
        ),
        f"of {EACH} candidates each, chosen by RUDOLPH itself": _share(
            judge.name(drawings.best_by_own()) == asked
        ),
        f"of {EACH} candidates each, chosen by ruCLIP": _share(
            judge.name(drawings.best_by_ruclip()) == asked
        ),
        "held-out pictures through the image tokenizer": _share(
            judge.name(sections.as_bytes(held_out.decoded)) == labels
        ),
    }
    read = {
        "RUDOLPH's captions name the digit": _share(right),
        "RUDOLPH classifies by perplexity": _share(np.array(told) == labels),
    }
    codes, vocabulary = (known.codes, held_out.codes), rudolph.config.image_vocab_size
    losses = {
        "RUDOLPH": sequence_losses(rudolph, images, [row["captions"][0] for row in test])[
            "image_loss"
        ],
        "bigram model": bigram_loss(*codes, vocabulary),
        "unigram model": unigram_loss(*codes, vocabulary),
    }
    # Mistakes first: they tell more than another right answer.
    shown = sorted(range(len(test)), key=lambda i: right[i])[:48]
    one_each = [labels.index(digit) for digit in (3, 5, 8)]
    page = [
        sections.reconstruction_section(held_out, vocabulary),
        *sections.drawing_sections(
            drawings,
            drawn,
            "A support vector machine, trained on real pictures after the image tokenizer, names "
            "each drawing; right is the digit that was asked for.",
        ),
        sections.captions_section(
            [np.asarray(open_image(images[i])) for i in shown],
            [captions[i] for i in shown],
            [right[i] for i in shown],
        ),
        sections.inpainting_section(
            rudolph,
            [images[i] for i in one_each],
            [PROMPT.format(NAMES[labels[i]]) for i in one_each],
        ),
        sections.losses_section(losses),
        loss_section(folder.parent / "vqgan", "VQGAN", "reconstruction and divergence", ""),
        loss_section(folder, "RUDOLPH", "weighted cross-entropy", ""),
    ]
    prefixed = {f"loss of a held-out code, {name}": value for name, value in losses.items()}
    return Outcome(drawn | read, page, prefixed)


def _share(hits: np.ndarray | list[bool]) -> float:
    return float(np.mean(hits))
