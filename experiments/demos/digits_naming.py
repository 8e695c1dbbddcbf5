"""Held-out handwritten digits: zero-shot by Russian prompts, beside two baselines."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_jax import Predictor, PretrainedClip
from clip_jax.image import open_image
from experiments.config.run import TrainConfig
from experiments.data.digits_ru import NAMES, TEMPLATES
from experiments.data.source import open_split
from experiments.demos.baselines import logistic_regression, nearest_labels, pixel_features
from experiments.demos.outcome import Outcome, loss_section, score_table
from experiments.evaluation.methods.zero_shot import zero_shot
from experiments.evaluation.report import figures
from experiments.evaluation.report.page import Picture, Section

PIXELS = 8  # the digits' own size, for the baselines
PROMPT = TEMPLATES[0]


def evaluate(clip: PretrainedClip, config: TrainConfig, workdir: Path) -> Outcome:
    """Everything is measured on the split "test", which neither training nor tuning has seen."""
    train, test = (list(open_split(config.data, split)) for split in ("train", "test"))
    images, labels = [row["image"] for row in test], [row["label"] for row in test]
    result = zero_shot(clip, images, labels, NAMES, TEMPLATES)
    known = pixel_features([row["image"] for row in train], PIXELS)
    known_labels = [row["label"] for row in train]
    asked = pixel_features(images, PIXELS)
    neighbour = nearest_labels(asked, known, known_labels)
    regression = logistic_regression(known, known_labels, asked)
    scores = {
        "ruCLIP zero-shot, Russian prompts": result.accuracy,
        "pixel nearest neighbour (sees the labels)": float((neighbour == labels).mean()),
        "logistic regression (sees the labels)": float((regression == labels).mean()),
    }
    pictures = [np.asarray(open_image(image)) for image in images]
    one_each = [labels.index(digit) for digit in range(10)]
    captions = [PROMPT.format(name) for name in NAMES]
    texts = Predictor(clip, [PROMPT], quiet=True).get_text_latents(NAMES)
    latents = Predictor(clip, quiet=True).get_image_latents([images[i] for i in one_each])
    # Mistakes first: they tell more than another right answer.
    shown = sorted(range(len(test)), key=lambda i: labels[i] == result.predicted[i])[:48]
    sections = [
        Section(
            f"Accuracy on {len(test)} held-out pictures",
            "The model was never given a class: it compares the picture with each of the prompts "
            + ", ".join(f"«{template.format('семь')}»" for template in TEMPLATES)
            + " and so on. The baselines learn from the labels of the training pictures.",
            score_table("method", scores),
        ),
        loss_section(
            workdir,
            "ruCLIP",
            "contrastive loss",
            "Equal captions in a batch count as wrong answers for one another, as in the original, "
            "so the loss cannot reach zero.",
        ),
        Section(
            "Cosine similarity of pictures and captions",
            "One held-out picture of each digit; the brightest of a row is the model's choice.",
            Picture(
                "similarity",
                figures.similarity_matrix(
                    latents @ texts.T, [pictures[i] for i in one_each], captions
                ),
                "Matrix of cosines",
            ),
        ),
        Section(
            "What the model calls them",
            "Held-out pictures, mistakes first; green is right, red is wrong.",
            Picture(
                "captions",
                figures.picture_grid(
                    [pictures[i] for i in shown],
                    [captions[result.predicted[i]] for i in shown],
                    [labels[i] == result.predicted[i] for i in shown],
                ),
                "Grid of digits with predicted captions",
            ),
        ),
    ]
    return Outcome(scores, sections)
