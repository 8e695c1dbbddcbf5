"""Losses that tell which image and caption belong together, over all pairs of a batch.

The batch is whole or sharded over devices. A shard's loss is such that its mean over shards is the
batch's loss, and so is the mean of its gradients; the scale and bias are the same on all shards.
`docs/losses.md` says which form is for which batch.

# B local batch, G global batch, E embedding
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax.errors import InputError
from clip_jax.pair_masks import LOWEST, Best, Rows, products, relation
from clip_jax.tile_loop import AxisName, Walk, vary
from clip_jax.tiled_sigmoid import surprise, tiled_sigmoid
from clip_jax.tiled_softmax import tiled_softmax

# gathered: float32[B, G] logits. tiled: tiles of them, of all gathered columns. ring: tiles of
# them, columns travel. All give the same values.
FORMS = ("gathered", "tiled", "ring")
# Rows of one group are one another's wrong answers, right ones, or neither.
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
    """Mean cross-entropy of image-to-text and text-to-picture choices.

    image, text: float[B, E], unit rows that belong together by position. float32 rows are
        multiplied at full precision, bfloat16 ones as they are; sums and logits are float32.
    scale: float32[], what similarities are multiplied by (not its logarithm).
    form: one of FORMS. tile: rows and columns that a tile of the latter two has at most.
    duplicates: what rows of one group, such as equal captions, are to one another:
        "negatives": wrong answers, as in CLIP; groups do not matter.
        "positives": right answers, in equal shares.
        "masked": left out of one another's choices.
    groups: int[B] or uint[B]. None: each row is its own group.
    axis_name: mesh axis, or axes, over which the batch is sharded, inside `shard_map` or `pmap`.
        None: the batch is whole, and "ring" is "tiled".

    Returns the loss float32[] of this shard's rows and {"image_accuracy", "text_accuracy"}: how
    often the most similar column, of equal ones the first, is a right one. The tiled forms have no
    forward-mode derivative. An unknown form or option raises InputError.

    Source: Radford et al. 2021, figure 3.
    """
    _check(form, duplicates, tile)
    image, text, (scale,) = _prepare(image, text, groups, axis_name, scale)
    if form != "gathered":
        return tiled_softmax(Walk(form, axis_name, tile), duplicates, image, text, scale)
    image_loss, image_accuracy = _choose(image, _gather(text, axis_name), scale, duplicates)
    text_loss, text_accuracy = _choose(text, _gather(image, axis_name), scale, duplicates)
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
    """Minus the log-probability of telling every pair rightly, summed, a row of the whole batch.

    bias: float32[], added to the scaled similarities. duplicates: pairs of one group are wrong
    ("negatives"), right ("positives") or left out ("masked"). The rest as in `contrastive_loss`.

    Source: Zhai et al. 2023 (SigLIP), algorithm 1.
    """
    _check(form, duplicates, tile)
    image, text, (scale, bias) = _prepare(image, text, groups, axis_name, scale, bias)
    if form != "gathered":
        return tiled_sigmoid(Walk(form, axis_name, tile), duplicates, image, text, scale, bias)
    columns = _gather(text, axis_name)
    counts, belongs = relation(image, columns, duplicates)
    similarity = scale * products(image, columns)
    loss = surprise(similarity + bias, counts, belongs).sum() / image.number.shape[0]
    best = Best.of(jnp.where(counts, similarity, LOWEST), belongs, columns.number, axis=1)
    _, text_accuracy = _choose(text, _gather(image, axis_name), scale, duplicates)
    return loss, {"image_accuracy": best.accuracy(), "text_accuracy": text_accuracy}


def _choose(
    rows: Rows, columns: Rows, scale: jax.Array, duplicates: str
) -> tuple[jax.Array, jax.Array]:
    counts, belongs = relation(rows, columns, duplicates)
    logits = jnp.where(counts, scale * products(rows, columns), LOWEST)
    answers = jnp.where(belongs, logits, 0).sum(axis=1) / belongs.sum(axis=1)
    loss = (jax.nn.logsumexp(logits, axis=1) - answers).mean()
    return loss, Best.of(logits, belongs, columns.number, axis=1).accuracy()


def _prepare(
    image: jax.Array,
    text: jax.Array,
    groups: jax.Array | None,
    axis_name: AxisName,
    *scalars: jax.Array,
) -> tuple[Rows, Rows, list[jax.Array]]:
    """Both sides, and the scalars marked as differing between shards."""
    batch = image.shape[0]
    first = 0 if axis_name is None else lax.axis_index(axis_name) * batch
    number = first + jnp.arange(batch, dtype=jnp.int32)
    group = number if groups is None else groups
    real = vary(jnp.ones((batch,), bool), number)
    sides = Rows(image, number, group, real), Rows(text, number, group, real)
    return *sides, vary([jnp.asarray(x, jnp.float32) for x in scalars], sides)


def _gather(rows: Rows, axis_name: AxisName) -> Rows:
    """[B, ...] -> [G, ...], in the order of the shards."""
    if axis_name is None:
        return rows
    return jax.tree.map(lambda x: lax.all_gather(x, axis_name, tiled=True), rows)


def _check(form: str, duplicates: str, tile: int) -> None:
    for name, value, known in (("form", form, FORMS), ("duplicates", duplicates, DUPLICATES)):
        if value not in known:
            raise InputError(f"{name} is {value!r}; expected one of {', '.join(known)}")
    if tile < 1:
        raise InputError(f"tile is {tile}; expected a positive number of rows")
