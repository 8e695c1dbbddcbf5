"""Captions and classes of an uploaded image."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax import Predictor
from clip_jax.errors import InputError
from rudolph_jax import tasks
from rudolph_jax.app.limits import Limits
from rudolph_jax.pretrained import PretrainedRudolph

LabelScores = dict[str, float]  # label -> score from 0 to 1


@dataclasses.dataclass(frozen=True)
class Classification:
    """Scores of the labels that add up to 1, by each model; None: the model is not loaded.

    ruclip: softmax of the scaled cosines.
    rudolph: normalized inverse perplexities of the labels as captions, which order the labels and
        are no probabilities.
    """

    ruclip: LabelScores | None
    rudolph: LabelScores | None


def caption(
    rudolph: PretrainedRudolph,
    file: str | Path | None,
    template: str,
    candidates: float,
    seed: int,
    limits: Limits,
    *,
    batch_size: int,
) -> list[dict[str, Any]]:
    """Generates captions, best first; see `tasks.image_captioning`."""
    image = limits.open_upload(file)
    number = limits.count("number of candidates", candidates)
    beginning = limits.text("caption's beginning", template)
    found = tasks.image_captioning(
        rudolph, image, number, generations_num=number, r_template=beginning, seed=seed,
        batch_size=batch_size, quiet=True,
    )  # fmt: skip
    if not found:
        raise InputError("no caption was generated; try more candidates, or another beginning")
    return found


def classify(
    rudolph: PretrainedRudolph,
    predictor: Predictor | None,
    file: str | Path | None,
    labels: str,
    template: str,
    limits: Limits,
    *,
    batch_size: int,
) -> Classification:
    """Classifies an image.

    labels: separated by commas or lines.
    template: with {} for the label; empty: ruCLIP's six, and for RUDOLPH the label alone.
    """
    image = limits.open_upload(file)
    names = limits.class_names(labels)
    template = limits.text("template", template)
    if template and template.count("{}") != 1:
        raise InputError(f"the template is {template!r}; expected one {{}} where the label stands")
    by_ruclip = by_rudolph = None
    if predictor is not None:
        with_template = Predictor(
            predictor.clip, [template] if template else None, batch_size=batch_size, quiet=True
        )
        cosines = (
            with_template.get_image_latents([image])[0] @ with_template.get_text_latents(names).T
        )
        by_ruclip = _normalize(
            names, np.exp(predictor.clip.logit_scale * (cosines - cosines.max()))
        )
    if rudolph.config.right_text_length:
        captions = [(template or "{}").replace("{}", name) for name in names]
        perplexities = tasks.class_perplexities(rudolph, [image], captions, batch_size=batch_size)
        by_rudolph = _normalize(names, 1 / perplexities[0])
    return Classification(by_ruclip, by_rudolph)


def _normalize(names: list[str], weights: np.ndarray) -> LabelScores:
    scores = weights / weights.sum()
    return {name: float(score) for name, score in zip(names, scores, strict=True)}
