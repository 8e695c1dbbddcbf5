"""The contrastive loss over tiles: its forward pass keeps two numbers a row, no logits.

One walk serves both directions: a tile's product is made once for the rows' choices among the
columns and the columns' among the rows, and once more in the backward pass.

# R rows, C columns of a tile
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clip_jax.pair_masks import LOWEST, Best, Rows, products, relation, stack
from clip_jax.tile_gradients import cotangent, gradients
from clip_jax.tile_loop import AxisName, Tree, Walk, Work, from_all_shards, walk


class Choice(NamedTuple):
    """A choice among the partners met so far.

    total: float32[R], the sum of exp(logit - best.similarity).
    answers: float32[R], the sum of the right answers' logits. count: float32[R], how many.
    """

    best: Best
    total: jax.Array
    answers: jax.Array
    count: jax.Array

    @staticmethod
    def start(shape: tuple[int, ...]) -> Choice:
        return Choice(Best.start(shape), *(jnp.zeros(shape) for _ in range(3)))

    @staticmethod
    def of(logits: jax.Array, belongs: jax.Array, number: jax.Array, axis: int) -> Choice:
        best = Best.of(logits, belongs, number, axis)
        above = logits - jnp.expand_dims(best.similarity, axis)
        answers = jnp.where(belongs, logits, 0).sum(axis)
        count = belongs.sum(axis, dtype=jnp.float32)
        return Choice(best, jnp.exp(above).sum(axis), answers, count)

    @staticmethod
    def merge(several: Choice) -> Choice:
        """[D, R] -> [R]"""
        best = Best.merge(several.best)
        shrink = jnp.exp(several.best.similarity - best.similarity)
        total = (several.total * shrink).sum(0)
        return Choice(best, total, several.answers.sum(0), several.count.sum(0))

    def log_total(self) -> jax.Array:
        """The logarithm of the sum of exp(logit)."""
        return self.best.similarity + jnp.log(self.total)

    def loss(self) -> jax.Array:
        """Cross-entropy with the right answers in equal shares, mean over rows."""
        return (self.log_total() - self.answers / self.count).mean()


class Known(NamedTuple):
    """What the backward pass needs of a row: float32[R] each.

    share: of each right answer. weight: the loss's cotangent, of the row's own shard.
    """

    log_total: jax.Array
    share: jax.Array
    weight: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def tiled_softmax(
    plan: Walk, duplicates: str, image: Rows, text: Rows, scale: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`contrastive.contrastive_loss` of rows whose arrays and scale all vary over the shards."""
    return _forward(plan, duplicates, image, text, scale)[0]


def _forward(plan: Walk, duplicates: str, image: Rows, text: Rows, scale: jax.Array) -> Tree:
    def visit(rows: Rows, columns: Rows, row_choice: Choice, column_choice: Choice) -> Tree:
        counts, belongs = relation(rows, columns, duplicates)
        logits = jnp.where(counts, scale * products(rows, columns), LOWEST)
        of_rows = Choice.of(logits, belongs, columns.number[None, :], axis=1)
        of_columns = Choice.of(logits, belongs, rows.number[:, None], axis=0)
        row_choice = Choice.merge(stack(row_choice, of_rows))
        return row_choice, Choice.merge(stack(column_choice, of_columns)), ()

    work = Work(visit, Choice.start, Choice.start, (), _merge_at_home)
    image_choice, text_choice, _ = walk(plan, work, image, text)
    loss = (image_choice.loss() + text_choice.loss()) / 2
    metrics = {
        "image_accuracy": image_choice.best.accuracy(),
        "text_accuracy": text_choice.best.accuracy(),
    }
    known = tuple((choice.log_total(), 1 / choice.count) for choice in (image_choice, text_choice))
    return (loss, metrics), (image, text, scale, *known)


def _backward(plan: Walk, duplicates: str, residuals: Tree, cotangents: Tree) -> Tree:
    image, text, scale, image_known, text_known = residuals
    batch = image.number.shape[0]
    weight = jnp.broadcast_to(cotangents[0] / (2 * batch), (batch,))

    def slope(rows: Tree, columns: Tree, product: jax.Array) -> jax.Array:
        (rows, row), (columns, column) = rows, columns
        counts, belongs = relation(rows, columns, duplicates)
        logits = jnp.where(counts, scale * product, LOWEST)
        row, column = (jax.tree.map(lambda x: x[:, None], row), column)
        by_rows = jnp.exp(logits - row.log_total) - belongs * row.share
        by_columns = jnp.exp(logits - column.log_total) - belongs * column.share
        return row.weight * by_rows + column.weight * by_columns

    found = gradients(
        plan, slope, (image, Known(*image_known, weight)), (text, Known(*text_known, weight))
    )
    return (
        cotangent(image, scale * found.rows),
        cotangent(text, scale * found.columns),
        found.scale.astype(scale.dtype),
    )


def _merge_at_home(choices: Choice, axis_name: AxisName) -> Choice:
    return Choice.merge(from_all_shards(choices, axis_name))


tiled_softmax.defvjp(_forward, _backward)
