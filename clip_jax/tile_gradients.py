"""Gradients of a loss that is a function of all pairs' products, from its slope at each pair.

# R rows, C columns of a tile, E embedding
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from clip_jax.pair_masks import Rows, exactly, products
from clip_jax.tile_loop import Tree, Walk, Work, sum_at_home, walk


class Gradients(NamedTuple):
    """rows, columns: float32[B, E] for logits that are the products themselves.

    scale, bias: float32[], this shard's part of the sums of slope times product and of slope.
    """

    rows: jax.Array
    columns: jax.Array
    scale: jax.Array
    bias: jax.Array


def gradients(
    plan: Walk,
    slope: Callable[[Tree, Tree, jax.Array], jax.Array],
    rows: tuple[Rows, Tree],
    columns: tuple[Rows, Tree],
) -> Gradients:
    """slope: (rows, columns, products float32[R, C]) to the loss's derivatives by the logits.

    rows, columns: with what the slope needs to know of them besides; all [B, ...].
    """
    width = rows[0].features.shape[-1]

    def visit(rows: Tree, columns: Tree, row_sum: Tree, column_sum: Tree) -> tuple[Tree, ...]:
        x, y = rows[0].features, columns[0].features
        product = products(rows[0], columns[0])
        d = slope(rows, columns, product)
        totals = ((d * product).sum(), d.sum())
        d = d.astype(x.dtype)
        row_sum += jnp.einsum("RC,CE->RE", d, y, **exactly(y))
        column_sum += jnp.einsum("RC,RE->CE", d, x, **exactly(x))
        return row_sum, column_sum, totals

    def start(shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((*shape, width))

    zeros = (jnp.zeros(()), jnp.zeros(()))
    work = Work(visit, start, start, zeros, sum_at_home)
    row_sum, column_sum, totals = walk(plan, work, rows, columns)
    return Gradients(row_sum, column_sum, *totals)


def cotangent(rows: Rows, gradient: jax.Array) -> Rows:
    """The gradient of features as JAX wants it of the rows that they belong to."""
    return Rows(gradient.astype(rows.features.dtype), None, None, None)
