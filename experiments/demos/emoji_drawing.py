"""Emoji: drawn from their Russian names, captioned, completed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip
from clip_jax.image import open_image
from experiments.config.run import TrainConfig
from experiments.data.emoji_ru import CATEGORY_WORDS
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

PROMPTS, GROUPS, EACH = 20, 10, 4  # names, drawings of each, candidates for each when ranked


def evaluate(
    rudolph: PretrainedRudolph, clip: PretrainedClip, config: TrainConfig, folder: Path
) -> Outcome:
    """Measured on the split "new_drawing": emoji that were trained on as another hand drew them.

    config, folder: of RUDOLPH's run, beside the tokenizer's.
    """
    train, drawings = (list(open_split(config.data, split)) for split in ("train", "new_drawing"))
    known = reconstruct(rudolph.vqgan, _images(train), rudolph.image_size)
    held_out = reconstruct(rudolph.vqgan, _images(drawings), rudolph.image_size)
    judge = Judge(sections.as_bytes(known.decoded), [row["category"] for row in train])
    chosen = [train[i] for i in np.linspace(0, len(train) - 1, PROMPTS).astype(int)]
    names = [row["caption"] for row in chosen]
    drawn = draw(rudolph, Predictor(clip, ["{}"], quiet=True), names, GROUPS, EACH)
    asked = np.array([row["category"] for row in chosen])[:, None]
    captions = tasks.caption_images(rudolph, _images(drawings), quiet=True)
    right = [text == row["caption"].lower() for text, row in zip(captions, drawings, strict=True)]
    words = [titles[0] for titles in CATEGORY_WORDS.values()]
    told = [tasks.zs_clf(rudolph, image, words)["label"] for image in _images(drawings)]
    categories = [row["category"] for row in drawings]
    shares = {
        f"{PROMPTS * GROUPS} drawings of the right category, the first that came": _share(
            judge.name(drawn.first()) == asked
        ),
        f"of {EACH} candidates each, chosen by RUDOLPH itself": _share(
            judge.name(drawn.best_by_own()) == asked
        ),
        f"of {EACH} candidates each, chosen by ruCLIP": _share(
            judge.name(drawn.best_by_ruclip()) == asked
        ),
        "held-out pictures through the image tokenizer": _share(
            judge.name(sections.as_bytes(held_out.decoded)) == categories
        ),
    }
    read = {
        "RUDOLPH's captions are the very name": _share(right),
        "RUDOLPH names the category by perplexity": _share(np.array(told) == categories),
    }
    codes, vocabulary = (known.codes, held_out.codes), rudolph.config.image_vocab_size
    losses = {
        "RUDOLPH": sequence_losses(
            rudolph, _images(drawings), [row["caption"] for row in drawings]
        )["image_loss"],
        "bigram model": bigram_loss(*codes, vocabulary),
        "unigram model": unigram_loss(*codes, vocabulary),
    }
    shown = np.linspace(0, len(drawings) - 1, min(64, len(drawings))).astype(int)
    completed = [drawings[i] for i in shown[:: max(len(shown) // 4, 1)][:4]]
    page = [
        sections.reconstruction_section(held_out, vocabulary),
        *sections.drawing_sections(
            drawn,
            shares,
            "A support vector machine, trained on the categories of real pictures after the image "
            "tokenizer, names each drawing's category; right is that of the name asked for.",
        ),
        sections.captions_section(
            [np.asarray(open_image(drawings[i]["image"])) for i in shown],
            [captions[i] for i in shown],
            [right[i] for i in shown],
        ),
        sections.inpainting_section(
            rudolph, _images(completed), [row["caption"] for row in completed]
        ),
        sections.losses_section(losses),
        loss_section(folder.parent / "vqgan", "VQGAN", "reconstruction and divergence", ""),
        loss_section(folder, "RUDOLPH", "weighted cross-entropy", ""),
    ]
    prefixed = {f"loss of a held-out code, {name}": value for name, value in losses.items()}
    return Outcome(shares | read, page, prefixed)


def _images(rows: list[dict[str, Any]]) -> list[bytes]:
    return [row["image"] for row in rows]


def _share(hits: np.ndarray | list[bool]) -> float:
    return float(np.mean(hits))
