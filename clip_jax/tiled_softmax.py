"""The contrastive loss in tiles: its forward pass stores two numbers a row, no logits.

One loop serves both directions: a tile's similarities are computed once for the softmax over
columns and that over rows, and once more in the backward pass.

# R rows, C columns of a tile, D shards or states
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clip_jax.pair_masks import MASK_VALUE, Embeddings, Top1, pair_masks, similarities, stack
from clip_jax.tile_gradients import cotangent, gradients
from clip_jax.tile_loop import AxisName, TileKernel, TilePlan, Tree, all_to_all_columns, map_tiles


class OnlineSoftmax(NamedTuple):
    """Holds each row's running softmax over the partners so far.

    top: the largest logit and its partner.
    sum_exp: float32[R], the sum of exp(logit - top.similarity).
    positive_logits: float32[R], the sum of the positive pairs' logits.
    num_positives: float32[R].
    """

    top: Top1
    sum_exp: jax.Array
    positive_logits: jax.Array
    num_positives: jax.Array

    @staticmethod
    def init(shape: tuple[int, ...]) -> OnlineSoftmax:
        """Returns the state before any partner."""
        return OnlineSoftmax(Top1.init(shape), *(jnp.zeros(shape) for _ in range(3)))

    @staticmethod
    def of(logits: jax.Array, positive: jax.Array, index: jax.Array, axis: int) -> OnlineSoftmax:
        """Reduces a tile along an axis; arguments as of `Top1.of`."""
        top = Top1.of(logits, positive, index, axis)
        shifted = logits - jnp.expand_dims(top.similarity, axis)
        positive_logits = jnp.where(positive, logits, 0).sum(axis)
        num_positives = positive.sum(axis, dtype=jnp.float32)
        return OnlineSoftmax(top, jnp.exp(shifted).sum(axis), positive_logits, num_positives)

    @staticmethod
    def merge(states: OnlineSoftmax) -> OnlineSoftmax:
        """Merges states [D, R] to one [R]."""
        top = Top1.merge(states.top)
        rescale = jnp.exp(states.top.similarity - top.similarity)
        sum_exp = (states.sum_exp * rescale).sum(0)
        return OnlineSoftmax(
            top, sum_exp, states.positive_logits.sum(0), states.num_positives.sum(0)
        )

    def logsumexp(self) -> jax.Array:
        """Returns log(sum(exp(logit))), float32[R]."""
        return self.top.similarity + jnp.log(self.sum_exp)

    def loss(self) -> jax.Array:
        """Returns the mean cross-entropy with a target uniform over the positives, float32[]."""
        return (self.logsumexp() - self.positive_logits / self.num_positives).mean()


class Residuals(NamedTuple):
    """Holds what the backward pass needs of a row: float32[R] each.

    logsumexp: of the row's logits.
    target_prob: of each positive, 1 / num_positives.
    weight: the loss's cotangent, of the row's own shard.
    """

    logsumexp: jax.Array
    target_prob: jax.Array
    weight: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def tiled_softmax(
    plan: TilePlan, duplicates: str, image: Embeddings, text: Embeddings, scale: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes `contrastive.contrastive_loss`; all arrays are marked as varying over the shards."""
    return _forward(plan, duplicates, image, text, scale)[0]


def _forward(
    plan: TilePlan, duplicates: str, image: Embeddings, text: Embeddings, scale: jax.Array
) -> Tree:
    def tile_fn(
        rows: Embeddings,
        columns: Embeddings,
        row_softmax: OnlineSoftmax,
        column_softmax: OnlineSoftmax,
    ) -> Tree:
        valid, positive = pair_masks(rows, columns, duplicates)
        logits = jnp.where(valid, scale * similarities(rows, columns), MASK_VALUE)
        of_rows = OnlineSoftmax.of(logits, positive, columns.index[None, :], axis=1)
        of_columns = OnlineSoftmax.of(logits, positive, rows.index[:, None], axis=0)
        row_softmax = OnlineSoftmax.merge(stack(row_softmax, of_rows))
        return row_softmax, OnlineSoftmax.merge(stack(column_softmax, of_columns)), ()

    kernel = TileKernel(tile_fn, OnlineSoftmax.init, OnlineSoftmax.init, (), _reduce_columns)
    image_softmax, text_softmax, _ = map_tiles(plan, kernel, image, text)
    loss = (image_softmax.loss() + text_softmax.loss()) / 2
    metrics = {
        "image_accuracy": image_softmax.top.accuracy(),
        "text_accuracy": text_softmax.top.accuracy(),
    }
    sides = (image_softmax, text_softmax)
    saved = tuple((side.logsumexp(), 1 / side.num_positives) for side in sides)
    return (loss, metrics), (image, text, scale, *saved)


def _backward(plan: TilePlan, duplicates: str, residuals: Tree, cotangents: Tree) -> Tree:
    image, text, scale, image_saved, text_saved = residuals
    batch = image.index.shape[0]
    weight = jnp.broadcast_to(cotangents[0] / (2 * batch), (batch,))

    def dlogits(rows: Tree, columns: Tree, similarity: jax.Array) -> jax.Array:
        (rows, row), (columns, column) = rows, columns
        valid, positive = pair_masks(rows, columns, duplicates)
        logits = jnp.where(valid, scale * similarity, MASK_VALUE)
        row, column = (jax.tree.map(lambda x: x[:, None], row), column)
        by_rows = jnp.exp(logits - row.logsumexp) - positive * row.target_prob
        by_columns = jnp.exp(logits - column.logsumexp) - positive * column.target_prob
        return row.weight * by_rows + column.weight * by_columns

    found = gradients(
        plan,
        dlogits,
        (image, Residuals(*image_saved, weight)),
        (text, Residuals(*text_saved, weight)),
    )
    return (
        cotangent(image, scale * found.rows),
        cotangent(text, scale * found.columns),
        found.scale.astype(scale.dtype),
    )


def _reduce_columns(states: OnlineSoftmax, axis_name: AxisName) -> OnlineSoftmax:
    return OnlineSoftmax.merge(all_to_all_columns(states, axis_name))


tiled_softmax.defvjp(_forward, _backward)
