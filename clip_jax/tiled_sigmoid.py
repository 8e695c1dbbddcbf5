"""The sigmoid loss over tiles: its forward pass keeps nothing of the pairs.

# R rows, C columns of a tile
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from clip_jax.pair_masks import LOWEST, Best, Rows, products, relation, stack
from clip_jax.tile_gradients import cotangent, gradients
from clip_jax.tile_loop import AxisName, Tree, Walk, Work, from_all_shards, walk


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def tiled_sigmoid(
    plan: Walk, duplicates: str, image: Rows, text: Rows, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`contrastive.sigmoid_loss` of rows whose arrays, scale and bias vary over the shards."""
    return _forward(plan, duplicates, image, text, scale, bias)[0]


def _forward(
    plan: Walk, duplicates: str, image: Rows, text: Rows, scale: jax.Array, bias: jax.Array
) -> Tree:
    def visit(rows: Rows, columns: Rows, row_best: Best, column_best: Best) -> Tree:
        counts, belongs = relation(rows, columns, duplicates)
        similarity = scale * products(rows, columns)
        total = surprise(similarity + bias, counts, belongs).sum()
        similarity = jnp.where(counts, similarity, LOWEST)
        of_rows = Best.of(similarity, belongs, columns.number[None, :], axis=1)
        of_columns = Best.of(similarity, belongs, rows.number[:, None], axis=0)
        row_best = Best.merge(stack(row_best, of_rows))
        return row_best, Best.merge(stack(column_best, of_columns)), total

    work = Work(visit, Best.start, Best.start, jnp.zeros(()), _merge_at_home)
    image_best, text_best, total = walk(plan, work, image, text)
    metrics = {"image_accuracy": image_best.accuracy(), "text_accuracy": text_best.accuracy()}
    return (total / image.number.shape[0], metrics), (image, text, scale, bias)


def _backward(plan: Walk, duplicates: str, residuals: Tree, cotangents: Tree) -> Tree:
    image, text, scale, bias = residuals
    weight = cotangents[0] / image.number.shape[0]

    def slope(rows: Tree, columns: Tree, product: jax.Array) -> jax.Array:
        counts, belongs = relation(rows[0], columns[0], duplicates)
        return jnp.where(counts, weight * (jax.nn.sigmoid(scale * product + bias) - belongs), 0)

    found = gradients(plan, slope, (image, ()), (text, ()))
    return (
        cotangent(image, scale * found.rows),
        cotangent(text, scale * found.columns),
        found.scale.astype(scale.dtype),
        found.bias.astype(bias.dtype),
    )


def surprise(logits: jax.Array, counts: jax.Array, belongs: jax.Array) -> jax.Array:
    """Minus the log of the probability that each pair is told rightly; 0 where none counts."""
    return jnp.where(counts, jax.nn.softplus(jnp.where(belongs, -logits, logits)), 0)


def _merge_at_home(bests: Best, axis_name: AxisName) -> Best:
    return Best.merge(from_all_shards(bests, axis_name))


tiled_sigmoid.defvjp(_forward, _backward)
