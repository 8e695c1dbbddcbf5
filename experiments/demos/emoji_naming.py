"""Held-out emoji: the Russian name of a new drawing, the category of a new emoji."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip
from clip_jax.image import open_image
from experiments.config.run import TrainConfig
from experiments.data.emoji_ru import CATEGORIES, CATEGORY_WORDS, STYLES, all_names
from experiments.data.source import open_split
from experiments.demos.baselines import nearest_labels, pixel_features, pixel_similarities
from experiments.demos.outcome import Outcome, loss_section, score_table
from experiments.evaluation.methods.retrieval import RetrievalResult, rank, retrieve
from experiments.evaluation.report import figures
from experiments.evaluation.report.page import Picture, Section

TWEMOJI = STYLES.index("twemoji")


def evaluate(clip: PretrainedClip, config: TrainConfig, workdir: Path) -> Outcome:
    """Measured on the splits "new_drawing" and "new_emoji", which nothing was tuned on."""
    train, drawings, emoji = (
        list(open_split(config.data, split)) for split in ("train", "new_drawing", "new_emoji")
    )
    names = all_names()
    found = retrieve(clip, _images(drawings), _ids(drawings), names)
    neighbours = _nearest_twemoji(drawings, train + emoji)
    categories = [row["category"] for row in emoji]
    predicted = classify(clip, _images(emoji))
    known, asked = pixel_features(_images(train)), pixel_features(_images(emoji))
    by_pixels = nearest_labels(asked, known, [row["category"] for row in train])
    largest = np.bincount([row["category"] for row in train]).argmax()
    recall = {
        "ruCLIP: right name first": found.recall(1),
        "pixel nearest neighbour: first": neighbours.recall(1),
        "ruCLIP: right name among ten": found.recall(10),
        "pixel nearest neighbour: among ten": neighbours.recall(10),
    }
    category = {
        "ruCLIP zero-shot category": float((predicted == categories).mean()),
        "pixel nearest neighbour: category": float((by_pixels == categories).mean()),
        "always the most frequent category": float((largest == categories).mean()),
    }
    sections = [
        Section(
            f"Names of {len(drawings)} new drawings among {len(names):,}",
            "OpenMoji pictures that were never trained on; the model knows the same emoji as "
            "Twemoji drew them. The baseline compares pixels with all Twemoji pictures.",
            score_table("method", recall),
        ),
        Section(
            f"Categories of {len(emoji)} pictures of new emoji",
            "Emoji that were trained on in neither style, by prompts such as "
            + ", ".join(f"«{words[0]}»" for words in list(CATEGORY_WORDS.values())[:4])
            + ". The baseline takes the category of the most similar training picture.",
            score_table("method", category),
        ),
        loss_section(workdir, "ruCLIP", "contrastive loss", ""),
        _matrix(clip, drawings),
        _grid(drawings, found, names),
    ]
    return Outcome(recall | category, sections)


def classify(clip: PretrainedClip, images: list[bytes]) -> np.ndarray:
    """int[N]: for each image a category, by the mean embedding of its Russian words."""
    predictor = Predictor(clip, ["{}"], batch_size=256, quiet=True)
    means = [predictor.get_text_latents(words).mean(axis=0) for words in CATEGORY_WORDS.values()]
    classes = np.stack([mean / np.linalg.norm(mean) for mean in means])
    assert len(classes) == len(CATEGORIES)
    return (predictor.get_image_latents(images) @ classes.T).argmax(axis=1)


def _nearest_twemoji(
    drawings: list[dict[str, Any]], others: list[dict[str, Any]]
) -> RetrievalResult:
    """The baseline's answer: names by the pixels of every emoji's Twemoji picture."""
    twemoji = sorted((row for row in others if row["style"] == TWEMOJI), key=lambda r: r["id"])
    similarities = pixel_similarities(
        pixel_features(_images(drawings)), pixel_features(_images(twemoji))
    )
    return rank(similarities, np.asarray(_ids(drawings)))


def _matrix(clip: PretrainedClip, drawings: list[dict[str, Any]]) -> Section:
    # Ten spread over the split, whatever the model makes of them.
    chosen = drawings[:: max(len(drawings) // 10, 1)][:10]
    predictor = Predictor(clip, ["{}"], quiet=True)
    captions = [row["caption"] for row in chosen]
    cosines = predictor.get_image_latents(_images(chosen)) @ predictor.get_text_latents(captions).T
    png = figures.similarity_matrix(cosines, _pixels(chosen), captions)
    return Section(
        "Cosine similarity of pictures and names",
        "Ten new drawings, taken at even distances from the split.",
        Picture("similarity", png, "Matrix of cosines"),
    )


def _grid(drawings: list[dict[str, Any]], found: RetrievalResult, names: list[str]) -> Section:
    order = np.linspace(0, len(drawings) - 1, min(64, len(drawings))).astype(int)
    png = figures.picture_grid(
        _pixels([drawings[i] for i in order]),
        [names[found.best[i, 0]] for i in order],
        [bool(found.ranks[i] == 0) for i in order],
    )
    return Section(
        "What the model calls them",
        "New drawings, taken at even distances from the split, with the first of all names; green "
        "is right, red is wrong.",
        Picture("names", png, "Grid of emoji with predicted names"),
    )


def _images(rows: list[dict[str, Any]]) -> list[bytes]:
    return [row["image"] for row in rows]


def _ids(rows: list[dict[str, Any]]) -> list[int]:
    return [int(row["id"]) for row in rows]


def _pixels(rows: list[dict[str, Any]]) -> list[np.ndarray]:
    return [np.asarray(open_image(row["image"])) for row in rows]
