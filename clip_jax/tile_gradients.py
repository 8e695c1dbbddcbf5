"""Gradients of a loss over all pairs' similarities, from its derivative by each pair's logit.

# B local batch, R rows, C columns of a tile, E embedding
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clip_jax.pair_masks import Embeddings, einsum_options, similarities
from clip_jax.tile_loop import TileKernel, TilePlan, Tree, map_tiles, reduce_scatter_columns


class Gradients(NamedTuple):
    """Holds the gradients of a loss whose logits are scale * similarity + bias.

    rows, columns: float32[B, E], still to be multiplied by the scale.
    scale, bias: float32[], this shard's part of the sums over pairs.
    """

    rows: jax.Array
    columns: jax.Array
    scale: jax.Array
    bias: jax.Array


def gradients(
    plan: TilePlan,
    dlogits: Callable[[Tree, Tree, jax.Array], jax.Array],
    rows: tuple[Embeddings, Tree],
    columns: tuple[Embeddings, Tree],
) -> Gradients:
    """Sums the gradients over all tiles.

    dlogits: (rows, columns, similarities float32[R, C]) -> the loss's derivative by each logit,
        float32[R, C].
    rows, columns: embeddings, and a tree of whatever else `dlogits` reads of them; all [B, ...].
    """
    width = rows[0].features.shape[-1]

    def tile_fn(rows: Tree, columns: Tree, row_sum: Tree, column_sum: Tree) -> tuple[Tree, ...]:
        x, y = rows[0].features, columns[0].features
        similarity = similarities(rows[0], columns[0])
        d = dlogits(rows, columns, similarity)
        totals = ((d * similarity).sum(), d.sum())
        d = d.astype(x.dtype)
        row_sum += jnp.einsum("RC,CE->RE", d, y, **einsum_options(y))
        column_sum += jnp.einsum("RC,RE->CE", d, x, **einsum_options(x))
        return row_sum, column_sum, totals

    def init(shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((*shape, width))

    zeros = (jnp.zeros(()), jnp.zeros(()))
    kernel = TileKernel(tile_fn, init, init, zeros, reduce_scatter_columns)
    row_sum, column_sum, totals = map_tiles(plan, kernel, rows, columns)
    return Gradients(row_sum, column_sum, *totals)


def cotangent(rows: Embeddings, gradient: jax.Array) -> Embeddings:
    """Wraps the gradient of features, float32[B, E], as the cotangent of their Embeddings."""
    return Embeddings(gradient.astype(rows.features.dtype), None, None, None)
