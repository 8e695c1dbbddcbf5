"""The training loss: cross-entropy of the three segments, weighted.

# B sequences, T positions, D width, V vocabulary, C logits of a slice of it

Source: `rudolph.model.model.ruDolphModel.forward`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import PAD, Layout

Losses = dict[str, jax.Array]
# (positions, columns of the vocabulary) -> float32[B, positions, C]
LogitsFn = Callable[[slice, slice], jax.Array]


def rudolph_loss(
    logits: jax.Array,
    input_ids: jax.Array,
    config: RudolphConfig,
    *,
    left_weight: float = 1.0,
    image_weight: float = 7.0,
    right_weight: float = 1.0,
    legacy_boundary_label: bool = False,
    right_tokens: jax.Array | None = None,
) -> tuple[jax.Array, Losses]:
    """Computes the weighted mean of the losses of the segments that are present.

    logits: float32[B, T, V] as `Rudolph` makes them of input_ids: int32[B, T], which may end
        anywhere. Left text counts its padding, each position of which has an id of its own; right
        text does not.
    legacy_boundary_label: see `_left_text`. The originals' figures need it; new training does not.
    right_tokens: float32[], a sequence's labelled tokens of right text, in the mean of the batch
        that these sequences are an equal part of; then the mean over the parts is the batch's
        loss. None: these are the batch.
    Returns the loss and {"left_text_loss", "image_loss", "right_text_loss"} without weights, each
    float32[]; a segment without a labelled token is absent, or 0 where that depends on the batch.
    """
    return segment_loss(
        lambda positions, columns: logits[:, positions, columns].astype(jnp.float32),
        input_ids,
        config,
        left_weight=left_weight,
        image_weight=image_weight,
        right_weight=right_weight,
        legacy_boundary_label=legacy_boundary_label,
        right_tokens=right_tokens,
    )


def segment_loss(
    logits_fn: LogitsFn,
    input_ids: jax.Array,
    config: RudolphConfig,
    *,
    left_weight: float = 1.0,
    image_weight: float = 7.0,
    right_weight: float = 1.0,
    legacy_boundary_label: bool = False,
    right_tokens: jax.Array | None = None,
) -> tuple[jax.Array, Losses]:
    """Computes `rudolph_loss` of logits that are made segment by segment.

    logits_fn: makes the logits that a segment needs: of its positions, and of text ids or image ids
        alone. Together they are less than half of all; the others would have no gradient.
    """
    layout = Layout(config)
    _, image, right = layout.segment_lengths(input_ids.shape[1])
    losses: Losses = {}
    present: dict[str, jax.Array | bool] = {}

    def add(name: str, values: jax.Array) -> None:
        if values.size:
            losses[name], present[name] = values.mean(), True

    legacy = legacy_boundary_label and not layout.num_prefix_tokens
    add("left_text_loss", _left_text(logits_fn, input_ids, layout, legacy))
    if image:
        start = layout.image.start + legacy
        add(
            "image_loss",
            _cross_entropy(
                logits_fn, input_ids, layout, start, layout.image.start + image, "image"
            ),
        )
    if right:
        # Nothing predicts the right text's first token, its BOS.
        start, stop = layout.right.start + 1, layout.right.start + right
        values = _cross_entropy(logits_fn, input_ids, layout, start, stop, "text")
        if values.size:
            labelled = input_ids[:, start:stop] != PAD
            if right_tokens is None:
                right_tokens = count_right_tokens(input_ids, config)
            present["right_text_loss"] = right_tokens > 0
            a_sequence = (values * labelled).sum(axis=1).mean()
            losses["right_text_loss"] = a_sequence / jnp.where(right_tokens > 0, right_tokens, 1.0)
    weights = {
        "left_text_loss": left_weight, "image_loss": image_weight, "right_text_loss": right_weight
    }  # fmt: skip
    total = sum(weights[name] * jnp.where(present[name], losses[name], 0.0) for name in losses)
    weight = sum(weights[name] * present[name] for name in losses)
    return total / jnp.maximum(weight, 1e-12), losses


def image_loss_sums(logits_fn: LogitsFn, input_ids: jax.Array, config: RudolphConfig) -> jax.Array:
    """Sums the cross-entropies of each sequence's image codes: int32[B, T] -> float32[B]."""
    layout = Layout(config)
    _, image, _ = layout.segment_lengths(input_ids.shape[1])
    start = layout.image.start
    return _cross_entropy(logits_fn, input_ids, layout, start, start + image, "image").sum(axis=1)


def right_text_loss_sums(
    logits_fn: LogitsFn, input_ids: jax.Array, config: RudolphConfig
) -> tuple[jax.Array, jax.Array]:
    """Sums the cross-entropies of each sequence's labelled right-text tokens, and counts these.

    int32[B, T] -> float32[B], int32[B]. As in `segment_loss`, padding and the BOS have no label.
    """
    layout = Layout(config)
    _, _, right = layout.segment_lengths(input_ids.shape[1])
    start, stop = layout.right.start + 1, layout.right.start + right
    values = _cross_entropy(logits_fn, input_ids, layout, start, stop, "text")
    labelled = input_ids[:, start:stop] != PAD
    return (values * labelled).sum(axis=1), labelled.sum(axis=1)


def count_right_tokens(input_ids: jax.Array, config: RudolphConfig) -> jax.Array:
    """Counts labelled right-text tokens, mean of the sequences: int32[B, T] -> float32[].

    Padding is not labelled, and the first token, its BOS, is predicted by nothing.
    """
    right = Layout(config).right
    labelled = input_ids[:, right.start + 1 : right.stop] != PAD
    return labelled.sum(axis=1).mean(dtype=jnp.float32)


def _left_text(
    logits_fn: LogitsFn, input_ids: jax.Array, layout: Layout, legacy: bool
) -> jax.Array:
    """Computes the cross-entropies of the left text's tokens: float32[B, positions].

    The last left position predicts the first image code. The original labels it with that code
    read as a *text* id (legacy), so the image logits there learn nothing, and a sampler that takes
    the first code from them takes it from untrained logits. Without `legacy` the image loss has
    that position, with the code as an image id.
    """
    left = min(input_ids.shape[1], layout.left.stop)
    ids = input_ids[:, :left]
    ids = jnp.where(ids == PAD, layout.text_pad_offset + jnp.arange(left), ids)
    ids = jnp.concatenate([ids, input_ids[:, left:]], axis=1)
    stop = left + (legacy and input_ids.shape[1] > left)
    return _cross_entropy(logits_fn, ids, layout, 1 - layout.num_prefix_tokens, stop, "text")


def _cross_entropy(
    logits_fn: LogitsFn,
    ids: jax.Array,
    layout: Layout,
    start: int,
    stop: int,
    logit_type: str,
) -> jax.Array:
    """Computes float32[B, stop - start] of these ids, each from the position before it.

    logit_type: "text" or "image", the ids whose logits take part.
    """
    if stop <= start:
        return jnp.zeros((len(ids), 0))
    before = slice(start - 1 + layout.num_prefix_tokens, stop - 1 + layout.num_prefix_tokens)
    logit_slice = layout.text_logits if logit_type == "text" else layout.image_logits
    values = logits_fn(before, logit_slice)
    labels = ids[:, start:stop, None]
    chosen = jnp.take_along_axis(values, labels, axis=-1)[..., 0]
    return jax.nn.logsumexp(values, axis=-1) - chosen
