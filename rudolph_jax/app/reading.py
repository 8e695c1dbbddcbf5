"""Captions and classes of an uploaded picture."""

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

Shares = dict[str, float]  # label -> its share, from 0 to 1


@dataclasses.dataclass(frozen=True)
class Classes:
    """Shares of the labels that add up to 1, by each of the models; None: there is no such model.

    ruclip: softmax of the scaled cosines. rudolph: of the label as a caption, by the inverse of
    its perplexity, which orders labels and is no probability.
    """

    ruclip: Shares | None
    rudolph: Shares | None


def caption(
    rudolph: PretrainedRudolph,
    picture: str | Path | None,
    template: str,
    candidates: float,
    seed: int,
    limits: Limits,
    *,
    batch_size: int,
) -> list[dict[str, Any]]:
    """The best captions, see `tasks.image_captioning`."""
    image = limits.picture(picture)
    number = limits.count("number of candidates", candidates)
    begin = limits.text("caption's beginning", template)
    found = tasks.image_captioning(
        rudolph, image, number, generations_num=number, r_template=begin, seed=seed,
        batch_size=batch_size, quiet=True,
    )  # fmt: skip
    if not found:
        raise InputError("nothing was written; try more candidates, or another beginning")
    return found


def classify(
    rudolph: PretrainedRudolph,
    predictor: Predictor | None,
    picture: str | Path | None,
    labels: str,
    template: str,
    limits: Limits,
    *,
    batch_size: int,
) -> Classes:
    """labels: with commas, or on lines of their own. template: {} for the label; empty: ruCLIP's
    six, and for RUDOLPH the label alone."""
    image = limits.picture(picture)
    names = limits.class_names(labels)
    template = limits.text("template", template)
    if template and template.count("{}") != 1:
        raise InputError(f"the template is {template!r}; expected one {{}} where the label stands")
    by_ruclip = by_rudolph = None
    if predictor is not None:
        asked = Predictor(
            predictor.clip, [template] if template else None, batch_size=batch_size, quiet=True
        )
        cosines = asked.get_image_latents([image])[0] @ asked.get_text_latents(names).T
        by_ruclip = _shares(names, np.exp(predictor.clip.logit_scale * (cosines - cosines.max())))
    if rudolph.config.right_text_length:
        captions = [(template or "{}").replace("{}", name) for name in names]
        perplexities = tasks.class_perplexities(rudolph, [image], captions, batch_size=batch_size)
        by_rudolph = _shares(names, 1 / perplexities[0])
    return Classes(by_ruclip, by_rudolph)


def _shares(names: list[str], weights: np.ndarray) -> Shares:
    shares = weights / weights.sum()
    return {name: float(share) for name, share in zip(names, shares, strict=True)}
