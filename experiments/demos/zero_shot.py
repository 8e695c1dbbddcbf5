"""Measures the quickstart's ruCLIP on held-out images, beside baselines that compare pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip
from experiments.config.run import TrainConfig
from experiments.data.digits_ru import NAMES, TEMPLATES
from experiments.data.emoji_ru import CATEGORIES, CATEGORY_WORDS, STYLES, all_names
from experiments.data.source import open_split
from experiments.demos.pixels import (
    logistic_regression,
    nearest_labels,
    pixel_features,
    pixel_similarities,
)
from experiments.demos.sections import (
    DemoResult,
    evenly_spaced,
    grid_section,
    loss_section,
    score_table,
    similarity_section,
)
from experiments.evaluation.methods.retrieval import RetrievalResult, rank, retrieve
from experiments.evaluation.methods.zero_shot import zero_shot
from experiments.evaluation.report.page import Section

DIGIT_SIZE = 8  # the digits' own size, for the baselines
TWEMOJI = STYLES.index("twemoji")
TITLE = "What the model calls them"
Rows = list[dict[str, Any]]


def digits(clip: PretrainedClip, config: TrainConfig, workdir: Path) -> DemoResult:
    """Accuracy by Russian prompts on the split "test", unseen in training and tuning."""
    train, test = (list(open_split(config.data, split)) for split in ("train", "test"))
    images, labels = column(test, "image"), column(test, "label")
    result = zero_shot(clip, images, labels, NAMES, TEMPLATES)
    known, known_labels = pixel_features(column(train, "image"), DIGIT_SIZE), column(train, "label")
    queries = pixel_features(images, DIGIT_SIZE)
    neighbour = nearest_labels(queries, known, known_labels)
    regression = logistic_regression(known, known_labels, queries)
    scores = {
        "ruCLIP zero-shot, Russian prompts": result.accuracy,
        "pixel nearest neighbour (sees the labels)": share(neighbour == labels),
        "logistic regression (sees the labels)": share(regression == labels),
    }
    captions = [TEMPLATES[0].format(name) for name in NAMES]
    right = (result.predicted == labels).tolist()
    # Mistakes first: they tell more than another right answer.
    shown = sorted(range(len(test)), key=lambda i: right[i])[:48]
    sections = [
        Section(
            f"Accuracy on {len(test)} held-out images",
            "The model was never given a class: it compares the image with each of the prompts "
            + ", ".join(f"«{template.format('семь')}»" for template in TEMPLATES)
            + " and so on. The baselines learn from the labels of the training images.",
            score_table("method", scores),
        ),
        loss_section(
            workdir,
            "ruCLIP",
            "contrastive loss",
            "Equal captions in a batch count as wrong answers for one another, as in the original, "
            "so the loss cannot reach zero.",
        ),
        similarity_section(
            clip,
            [images[labels.index(digit)] for digit in range(10)],
            captions,
            "captions",
            "One held-out image of each digit; the brightest of a row is the model's choice.",
        ),
        grid_section(
            TITLE,
            "Held-out images, mistakes first",
            "captions",
            [images[i] for i in shown],
            [captions[result.predicted[i]] for i in shown],
            [right[i] for i in shown],
        ),
    ]
    return DemoResult(scores, sections)


def emoji(clip: PretrainedClip, config: TrainConfig, workdir: Path) -> DemoResult:
    """Names of the split "new_drawing", categories of "new_emoji", which nothing was tuned on."""
    train, drawings, unseen = (
        list(open_split(config.data, split)) for split in ("train", "new_drawing", "new_emoji")
    )
    names, images = all_names(), column(drawings, "image")
    found = retrieve(clip, images, column(drawings, "id"), names)
    neighbours = nearest_twemoji(drawings, train + unseen)
    any_style = nearest_name(drawings, train + unseen)
    categories, known = column(unseen, "category"), column(train, "category")
    by_pixels = nearest_labels(
        pixel_features(column(unseen, "image")), pixel_features(column(train, "image")), known
    )
    recall = {
        "ruCLIP: right name first": found.recall(1),
        "pixel nearest neighbour: first": neighbours.recall(1),
        "ruCLIP: right name among ten": found.recall(10),
        "pixel nearest neighbour: among ten": neighbours.recall(10),
        "pixel nearest neighbour of all styles: first": any_style.recall(1),
        "pixel nearest neighbour of all styles: among ten": any_style.recall(10),
    }
    category = {
        "ruCLIP zero-shot category": share(
            emoji_categories(clip, column(unseen, "image")) == categories
        ),
        "pixel nearest neighbour: category": share(by_pixels == categories),
        "always the most frequent category": share(np.bincount(known).argmax() == categories),
    }
    shown = evenly_spaced(len(drawings), 64)
    # Ten spread over the split, whatever the model makes of them.
    ten = drawings[:: max(len(drawings) // 10, 1)][:10]
    sections = [
        Section(
            f"Names of {len(drawings)} new drawings among {len(names):,}",
            "Drawings that were never trained on, of emoji that the model knows as other hands "
            "drew them. The baselines compare pixels with all Twemoji images, or with those of all "
            "styles that are trained on.",
            score_table("method", recall),
        ),
        Section(
            f"Categories of {len(unseen)} images of new emoji",
            "Emoji that were trained on in no style, by prompts such as "
            + ", ".join(f"«{words[0]}»" for words in list(CATEGORY_WORDS.values())[:4])
            + ". The baseline takes the category of the most similar training image.",
            score_table("method", category),
        ),
        loss_section(workdir, "ruCLIP", "contrastive loss"),
        similarity_section(
            clip,
            column(ten, "image"),
            column(ten, "caption"),
            "names",
            "Ten new drawings, taken at even distances from the split.",
        ),
        grid_section(
            TITLE,
            "New drawings, taken at even distances from the split, with the first of all names",
            "names",
            [images[i] for i in shown],
            [names[found.best[i, 0]] for i in shown],
            [bool(found.ranks[i] == 0) for i in shown],
        ),
    ]
    return DemoResult(recall | category, sections)


def emoji_categories(clip: PretrainedClip, images: Sequence[bytes]) -> np.ndarray:
    """int[N]: for each image a category, by the mean embedding of its Russian words."""
    predictor = Predictor(clip, ["{}"], batch_size=256, quiet=True)
    means = [predictor.get_text_latents(words).mean(axis=0) for words in CATEGORY_WORDS.values()]
    classes = np.stack([mean / np.linalg.norm(mean) for mean in means])
    assert len(classes) == len(CATEGORIES)
    return (predictor.get_image_latents(images) @ classes.T).argmax(axis=1)


def nearest_twemoji(drawings: Rows, others: Rows) -> RetrievalResult:
    """The baseline's answer: names by the pixels of every emoji's Twemoji image."""
    twemoji = sorted((row for row in others if row["style"] == TWEMOJI), key=lambda r: r["id"])
    similarities = pixel_similarities(
        pixel_features(column(drawings, "image")), pixel_features(column(twemoji, "image"))
    )
    return rank(similarities, column(drawings, "id"))


def nearest_name(drawings: Rows, others: Rows) -> RetrievalResult:
    """The names by the pixels of every emoji's most similar image, in whichever style."""
    similarities = pixel_similarities(
        pixel_features(column(drawings, "image")), pixel_features(column(others, "image"))
    )
    ids = np.array(column(others, "id"))
    nearest = np.full((len(drawings), ids.max() + 1), -np.inf, np.float32)
    np.maximum.at(nearest, (slice(None), ids), similarities)
    return rank(nearest, column(drawings, "id"))


def column(rows: Rows, name: str) -> list[Any]:
    return [row[name] for row in rows]


def share(hits: Any) -> float:
    return float(np.mean(hits))
