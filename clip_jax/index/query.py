"""Makes one unit vector of texts and images, added and subtracted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax.arguments import check_image_list, check_text_list, check_type
from clip_jax.errors import InputError
from clip_jax.model import normalize
from clip_jax.predictor import Predictor
from clip_jax.pretrained import PretrainedClip

SMALLEST_NORM = 1e-3  # below it what was added and what was subtracted are the same


def query_vector(
    clip: PretrainedClip,
    texts: Sequence[str] = (),
    images: Sequence[Any] = (),
    minus: Sequence[str] = (),
) -> np.ndarray:
    """Returns float32[E] of unit length: the sum of unit embeddings, less those of `minus`.

    images: each whatever `clip_jax.open_image` takes.
    Nothing to look for, empty texts and a sum of nearly nothing raise InputError.
    """
    check_type("clip", clip, PretrainedClip, "clip_jax.load(folder)")
    texts, minus = check_text_list("texts", texts), check_text_list("minus", minus)
    images = check_image_list("images", images)
    for text in (*texts, *minus):
        if not text.strip():
            raise InputError("the text is empty; expected a description of an image: 'кошка'")
    if not texts and not images:
        raise InputError("there is nothing to look for; expected a text or an image at least")
    predictor = Predictor(clip, quiet=True)
    total = np.zeros(clip.config.embed_dim, np.float32)
    if texts or minus:
        unit = np.asarray(normalize(predictor.encode_texts([*texts, *minus])))
        total += unit[: len(texts)].sum(axis=0) - unit[len(texts) :].sum(axis=0)
    if images:
        total += predictor.get_image_latents(images).sum(axis=0)
    norm = float(np.linalg.norm(total))
    if norm < SMALLEST_NORM:
        raise InputError("what is added and what is subtracted cancel out; expected other texts")
    return total / norm
