"""The sigmoid loss in tiles: its forward pass stores nothing per pair.

# R rows, C columns of a tile
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from clip_jax.pair_masks import MASK_VALUE, Embeddings, Top1, pair_masks, similarities, stack
from clip_jax.tile_gradients import cotangent, gradients
from clip_jax.tile_loop import AxisName, TileKernel, TilePlan, Tree, all_to_all_columns, map_tiles


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def tiled_sigmoid(
    plan: TilePlan,
    duplicates: str,
    image: Embeddings,
    text: Embeddings,
    scale: jax.Array,
    bias: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes `contrastive.sigmoid_loss`; all arrays are marked as varying over the shards."""
    return _forward(plan, duplicates, image, text, scale, bias)[0]


def _forward(
    plan: TilePlan,
    duplicates: str,
    image: Embeddings,
    text: Embeddings,
    scale: jax.Array,
    bias: jax.Array,
) -> Tree:
    def tile_fn(rows: Embeddings, columns: Embeddings, row_top: Top1, column_top: Top1) -> Tree:
        valid, positive = pair_masks(rows, columns, duplicates)
        logits = scale * similarities(rows, columns)
        total = pair_nll(logits + bias, valid, positive).sum()
        logits = jnp.where(valid, logits, MASK_VALUE)
        of_rows = Top1.of(logits, positive, columns.index[None, :], axis=1)
        of_columns = Top1.of(logits, positive, rows.index[:, None], axis=0)
        row_top = Top1.merge(stack(row_top, of_rows))
        return row_top, Top1.merge(stack(column_top, of_columns)), total

    kernel = TileKernel(tile_fn, Top1.init, Top1.init, jnp.zeros(()), _reduce_columns)
    image_top, text_top, total = map_tiles(plan, kernel, image, text)
    metrics = {"image_accuracy": image_top.accuracy(), "text_accuracy": text_top.accuracy()}
    return (total / image.index.shape[0], metrics), (image, text, scale, bias)


def _backward(plan: TilePlan, duplicates: str, residuals: Tree, cotangents: Tree) -> Tree:
    image, text, scale, bias = residuals
    weight = cotangents[0] / image.index.shape[0]

    def dlogits(rows: Tree, columns: Tree, similarity: jax.Array) -> jax.Array:
        valid, positive = pair_masks(rows[0], columns[0], duplicates)
        return jnp.where(valid, weight * (jax.nn.sigmoid(scale * similarity + bias) - positive), 0)

    found = gradients(plan, dlogits, (image, ()), (text, ()))
    return (
        cotangent(image, scale * found.rows),
        cotangent(text, scale * found.columns),
        found.scale.astype(scale.dtype),
        found.bias.astype(bias.dtype),
    )


def pair_nll(logits: jax.Array, valid: jax.Array, positive: jax.Array) -> jax.Array:
    """Returns each pair's negative log-likelihood, float32[R, C]; 0 for pairs that are not valid.

    Positive pairs are the event, with probability sigmoid(logit).
    """
    return jnp.where(valid, jax.nn.softplus(jnp.where(positive, -logits, logits)), 0)


def _reduce_columns(tops: Top1, axis_name: AxisName) -> Top1:
    return Top1.merge(all_to_all_columns(tops, axis_name))


tiled_sigmoid.defvjp(_forward, _backward)
