"""Contrastive and sigmoid losses over all pairs of a batch's images and captions.

The batch is on one device or sharded. The mean of the shards' losses is the batch's loss, and so
for gradients; the scale and bias are the same on all shards.
`docs/losses.md` says which form is for which batch.

# B local batch, G global batch, R rows, C columns, E embedding
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax.errors import InputError
from clip_jax.pair_masks import MASK_VALUE, Embeddings, Top1, pair_masks, similarities
from clip_jax.tile_loop import AxisName, TilePlan, pvary_like
from clip_jax.tiled_sigmoid import pair_nll, tiled_sigmoid
from clip_jax.tiled_softmax import tiled_softmax

# gathered: logits float32[B, G] of all-gathered columns. tiled: tiles of these. ring: tiles, with
# columns passed around a ring of devices. All give the same values.
FORMS = ("gathered", "tiled", "ring")
# Off-diagonal pairs of one group are negatives, positives, or masked.
DUPLICATES = ("negatives", "positives", "masked")

Metrics = dict[str, jax.Array]


def contrastive_loss(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    *,
    form: str = "gathered",
    duplicates: str = "negatives",
    groups: jax.Array | None = None,
    axis_name: AxisName = None,
    tile: int = 1024,
) -> tuple[jax.Array, Metrics]:
    """Computes the mean cross-entropy of image-to-text and text-to-image softmaxes (InfoNCE).

    image, text: float[B, E], unit rows; row i of both is a positive pair. float32 rows are
        multiplied at full precision, bfloat16 ones as they are; sums and logits are float32.
    scale: float32[], the factor of similarities (not its logarithm).
    form: one of FORMS.
    duplicates: how other pairs of one group, such as equal captions, are treated:
        "negatives": as any other, as in CLIP; groups do not matter.
        "positives": as positives; the target is uniform over a row's positives.
        "masked": left out of the softmax.
    groups: int[B] or uint[B]. None: each row is its own group.
    axis_name: mesh axis, or axes, over which the batch is sharded, inside `shard_map` or `pmap`.
        None: the batch is not sharded, and "ring" equals "tiled".
    tile: most rows, and columns, of a tile of the forms "tiled" and "ring".

    Returns the loss float32[] of this shard's rows and {"image_accuracy", "text_accuracy"}: top-1
    accuracies, where of equal columns the first counts. The tiled forms have no forward-mode
    derivative. An unknown form or option raises InputError.

    Source: Radford et al. 2021, figure 3.
    """
    _check(form, duplicates, tile)
    image, text, (scale,) = _prepare(image, text, groups, axis_name, scale)
    if form != "gathered":
        return tiled_softmax(TilePlan(form, axis_name, tile), duplicates, image, text, scale)
    image_loss, image_accuracy = _softmax_loss(image, _gather(text, axis_name), scale, duplicates)
    text_loss, text_accuracy = _softmax_loss(text, _gather(image, axis_name), scale, duplicates)
    metrics = {"image_accuracy": image_accuracy, "text_accuracy": text_accuracy}
    return (image_loss + text_loss) / 2, metrics


def sigmoid_loss(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    *,
    form: str = "gathered",
    duplicates: str = "negatives",
    groups: jax.Array | None = None,
    axis_name: AxisName = None,
    tile: int = 1024,
) -> tuple[jax.Array, Metrics]:
    """Computes the binary cross-entropy of all pairs, summed and divided by the batch size.

    bias: float32[], added to the scaled similarities.
    duplicates: how other pairs of one group are labelled: as "negatives", as "positives", or
        "masked", that is left out of the sum.

    Other arguments, and what is returned, as in `contrastive_loss`.

    Source: Zhai et al. 2023 (SigLIP), algorithm 1.
    """
    _check(form, duplicates, tile)
    image, text, (scale, bias) = _prepare(image, text, groups, axis_name, scale, bias)
    if form != "gathered":
        return tiled_sigmoid(TilePlan(form, axis_name, tile), duplicates, image, text, scale, bias)
    columns = _gather(text, axis_name)
    valid, positive = pair_masks(image, columns, duplicates)
    logits = scale * similarities(image, columns)
    loss = pair_nll(logits + bias, valid, positive).sum() / image.index.shape[0]
    top = Top1.of(jnp.where(valid, logits, MASK_VALUE), positive, columns.index, axis=1)
    _, text_accuracy = _softmax_loss(text, _gather(image, axis_name), scale, duplicates)
    return loss, {"image_accuracy": top.accuracy(), "text_accuracy": text_accuracy}


def _softmax_loss(
    rows: Embeddings, columns: Embeddings, scale: jax.Array, duplicates: str
) -> tuple[jax.Array, jax.Array]:
    """Returns one direction's loss and top-1 accuracy, float32[] each."""
    valid, positive = pair_masks(rows, columns, duplicates)
    logits = jnp.where(valid, scale * similarities(rows, columns), MASK_VALUE)
    positive_logits = jnp.where(positive, logits, 0).sum(axis=1) / positive.sum(axis=1)
    loss = (jax.nn.logsumexp(logits, axis=1) - positive_logits).mean()
    return loss, Top1.of(logits, positive, columns.index, axis=1).accuracy()


def _prepare(
    image: jax.Array,
    text: jax.Array,
    groups: jax.Array | None,
    axis_name: AxisName,
    *scalars: jax.Array,
) -> tuple[Embeddings, Embeddings, list[jax.Array]]:
    """Returns both sides, and the scalars marked as varying over the shards."""
    batch = image.shape[0]
    first = 0 if axis_name is None else lax.axis_index(axis_name) * batch
    index = first + jnp.arange(batch, dtype=jnp.int32)
    group = index if groups is None else groups
    valid = pvary_like(jnp.ones((batch,), bool), index)
    sides = Embeddings(image, index, group, valid), Embeddings(text, index, group, valid)
    return *sides, pvary_like([jnp.asarray(x, jnp.float32) for x in scalars], sides)


def _gather(rows: Embeddings, axis_name: AxisName) -> Embeddings:
    """Gathers all shards' [B, ...] to [G, ...], in the order of the shards."""
    if axis_name is None:
        return rows
    return jax.tree.map(lambda x: lax.all_gather(x, axis_name, tiled=True), rows)


def _check(form: str, duplicates: str, tile: int) -> None:
    for name, value, known in (("form", form, FORMS), ("duplicates", duplicates, DUPLICATES)):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    if tile < 1:
        raise InputError(f"tile is {tile}; expected a positive number of rows")
