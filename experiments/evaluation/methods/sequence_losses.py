"""Computes RUDOLPH's losses of held-out pairs, and those of counts of codes alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rudolph_jax.layout import PAD
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.text_encoding import encode_left, encode_right


def sequence_losses(
    rudolph: PretrainedRudolph,
    images: Sequence[Any],
    captions: Sequence[str],
    batch_size: int = 128,
) -> dict[str, float]:
    """Mean cross-entropies in nats: {"image_loss", "right_text_loss"}.

    image_loss: of a code, given the caption on the left and the codes before. right_text_loss: of a
    token of the caption on the right, given the image and no text on the left.
    """
    starts = range(0, len(captions), batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    return mean_losses(
        np.concatenate([loss_sums(rudolph, images[rows], captions[rows]) for rows in batches])
    )


def loss_sums(
    rudolph: PretrainedRudolph, images: Sequence[Any], captions: Sequence[str]
) -> np.ndarray:
    """float64[1, 4] of one batch: image loss times images, images, text loss times text tokens,
    text tokens. See `mean_losses`.
    """
    config, layout, tokenizer = rudolph.config, rudolph.layout, rudolph.tokenizer
    drawn = np.full((len(captions), layout.sequence_length), PAD, np.int32)
    drawn[:, layout.image] = rudolph.encode_images(images)
    captioned = drawn.copy()
    captioned[:, layout.left] = encode_left(tokenizer, config, "", "LT_I2T")
    for row, caption in enumerate(captions):
        drawn[row, layout.left] = encode_left(tokenizer, config, caption, "LT_T2I")
        captioned[row, layout.right] = encode_right(tokenizer, config, caption, "RT_I2T")
    text_tokens = int((captioned[:, layout.right][:, 1:] != PAD).sum())
    image, text = (
        float(rudolph.loss(ids, legacy_boundary_label=False)[1][name])
        for ids, name in ((drawn, "image_loss"), (captioned, "right_text_loss"))
    )
    return np.array([[image * len(drawn), len(drawn), text * text_tokens, text_tokens]])


def mean_losses(sums: np.ndarray) -> dict[str, float]:
    """Return the losses of `sequence_losses` from the sums of batches, float64[batches, 4]."""
    image, images, text, text_tokens = sums.sum(axis=0).tolist()
    return {"image_loss": image / images, "right_text_loss": text / text_tokens}


def unigram_loss(known: np.ndarray, codes: np.ndarray, vocabulary: int) -> float:
    """Mean cross-entropy of int32[N, n] by the frequencies of int32[M, n], each count plus one."""
    counts = 1.0 + np.bincount(known.ravel(), minlength=vocabulary)
    return float(-np.log(counts / counts.sum())[codes].mean())


def bigram_loss(known: np.ndarray, codes: np.ndarray, vocabulary: int) -> float:
    """The same by the frequencies after the code before; the first of an image has its own row.

    What is added to the counts, the same for all, is what suits `codes` best of a few values: the
    baseline is to be as strong as it can be.
    """
    table = np.zeros((vocabulary + 1, vocabulary))
    np.add.at(table, (_before(known, vocabulary), known), 1.0)
    losses = []
    for added in (1.0, 0.3, 0.1, 0.03, 0.01):
        shares = (table + added) / (table + added).sum(axis=1, keepdims=True)
        losses.append(-np.log(shares[_before(codes, vocabulary), codes]).mean())
    return float(min(losses))


def _before(codes: np.ndarray, start: int) -> np.ndarray:
    """The code before each in raster order, `start` before the first."""
    return np.concatenate([np.full_like(codes[:, :1], start), codes[:, :-1]], axis=1)
