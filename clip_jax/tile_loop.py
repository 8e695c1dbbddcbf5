"""A walk over all pairs of a batch's rows, tile by tile, on one device or around many.

One side, the rows, stays where it is. The other, the columns, is gathered on every device
("tiled") or travels from device to device ("ring"). Nothing grows with the number of pairs.

# B local batch, N tiles of a side, T rows of a tile, D shards

Source: Cheng et al. 2024 (Inf-CL, arXiv:2410.17243) for tiles and ring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Tree = Any  # of arrays whose first axis is the row
AxisName = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class Walk:
    """form: "tiled" or "ring". axis_name: over which the batch is sharded; None: it is whole.

    tile: rows and columns that a tile has at most.
    """

    form: str
    axis_name: AxisName
    tile: int


@dataclasses.dataclass(frozen=True)
class Work:
    """What is learned at a tile, and how it is collected.

    visit: (rows, columns, row state, column state), each of one tile, to the new states and what
        is added to the totals.
    rows, columns: from leading sizes to the states before any visit.
    totals: zeros.
    bring_home: of the tiled form over devices: from this shard's states of all shards' columns,
        and the axis, to the states of this shard's columns after every shard's visits.
    """

    visit: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree, Tree]]
    rows: Callable[[tuple[int, ...]], Tree]
    columns: Callable[[tuple[int, ...]], Tree]
    totals: Tree
    bring_home: Callable[[Tree, AxisName], Tree]


def walk(plan: Walk, work: Work, rows: Tree, columns: Tree) -> tuple[Tree, Tree, Tree]:
    """Visits every pair of this shard's rows and all shards' columns once.

    rows, columns: trees of arrays [B, ...]. Returns the states [B, ...] of this shard's rows and of
    this shard's columns, the latter after the visits of all shards, and this shard's totals.

    Sides that a tile does not divide are cut evenly and padded with zeros: a tree that must know
    its real rows carries a mark of them.
    """
    batch = jax.tree.leaves(rows)[0].shape[0]
    axis_name = plan.axis_name
    form = "whole" if axis_name is None or lax.axis_size(axis_name) == 1 else plan.form
    if form == "tiled":
        columns = jax.tree.map(lambda x: lax.all_gather(x, axis_name, tiled=True), columns)
    visited = jax.tree.leaves(columns)[0].shape[0]
    rows, columns = _cut(rows, plan.tile), _cut(columns, plan.tile)
    states = (work.rows(_sizes(rows)), work.columns(_sizes(columns)), work.totals)
    states = vary(states, (rows, columns))
    if form == "ring":
        states = _around(axis_name, work.visit, rows, columns, states)
    else:
        states = _visit_all(work.visit, rows, columns, states)
    row_state, column_state, totals = states
    row_state, column_state = _join(row_state, batch), _join(column_state, visited)
    if form == "tiled":
        column_state = work.bring_home(column_state, axis_name)
    return row_state, column_state, totals


def vary(tree: Tree, like: Tree) -> Tree:
    """The same values, marked as differing between shards wherever any leaf of `like` does.

    Where JAX tracks this (`shard_map` with check_vma), a loop's states need the mark, and the
    gradients of what was the same on all shards are then summed over them. Elsewhere nothing is
    done. Unlike `lax.pcast`, this neither asks for the axes nor minds what is marked already.
    """
    false = jnp.bool_(False)
    for leaf in jax.tree.leaves(like):
        false |= (leaf[(0,) * leaf.ndim] == 0) & False
    return jax.tree.map(lambda x: jnp.where(false, x, x), tree)


def sum_at_home(partial_sums: Tree, axis_name: AxisName) -> Tree:
    """A `bring_home` for states that are sums."""
    return jax.tree.map(lambda x: lax.psum_scatter(x, axis_name, tiled=True), partial_sums)


def from_all_shards(states: Tree, axis_name: AxisName) -> Tree:
    """This shard's states [D * B] of all shards' columns -> all shards' [D, B] of its own.

    Leaves are float32, int32 or bool; one exchange of 32-bit words serves them all.
    """
    leaves, tree = jax.tree.flatten(states)
    words = [lax.bitcast_convert_type(_wide(x), jnp.int32) for x in leaves]
    words = jnp.stack(words).reshape(len(leaves), lax.axis_size(axis_name), -1)
    words = lax.all_to_all(words, axis_name, split_axis=1, concat_axis=1)
    back = [
        lax.bitcast_convert_type(word, _wide(x).dtype).astype(x.dtype)
        for word, x in zip(words, leaves, strict=True)
    ]
    return tree.unflatten(back)


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(jnp.int32) if x.dtype == bool else x


def _around(axis_name, visit, rows, columns, states) -> Tree:
    """As many turns as shards; the columns and what is known of them end where they began."""
    shards = lax.axis_size(axis_name)
    to_next = [(shard, (shard + 1) % shards) for shard in range(shards)]

    def send(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: lax.ppermute(x, axis_name, to_next), tree)

    def turn(_: jax.Array, carry: Tree) -> Tree:
        columns, states = carry
        # The columns do not wait for the visit: they can travel while it computes.
        coming = send(columns)
        row_state, column_state, totals = _visit_all(visit, rows, columns, states)
        return coming, (row_state, send(column_state), totals)

    return lax.fori_loop(0, shards, turn, (columns, states))[1]


def _visit_all(visit, rows, columns, states) -> Tree:
    """All tiles of rows [N, T, ...] and columns [M, T, ...], one after another.

    One flat loop whose states are changed in place: nested loops would copy them.
    """
    N, M = _sizes(rows)[0], _sizes(columns)[0]

    def step(number: jax.Array, states: Tree) -> Tree:
        row_states, column_states, totals = states
        r, c = number % N, number // N
        row_state, column_state, more = visit(
            _at(rows, r), _at(columns, c), _at(row_states, r), _at(column_states, c)
        )
        return (
            _put(row_states, row_state, r),
            _put(column_states, column_state, c),
            jax.tree.map(jnp.add, totals, more),
        )

    return lax.fori_loop(0, N * M, step, states)


def _cut(tree: Tree, tile: int) -> Tree:
    """[B, ...] -> [N, T, ...] with N the fewest tiles that suffice and T as small as N allows."""

    def cut(x: jax.Array) -> jax.Array:
        N = -(-x.shape[0] // tile)
        T = -(-x.shape[0] // N)
        padding = [(0, N * T - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(N, T, *x.shape[1:])

    return jax.tree.map(cut, tree)


def _join(tree: Tree, batch: int) -> Tree:
    """[N, T, ...] -> [B, ...]"""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:batch], tree)


def _sizes(tree: Tree) -> tuple[int, int]:
    return jax.tree.leaves(tree)[0].shape[:2]


def _at(tree: Tree, i: jax.Array) -> Tree:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def _put(tree: Tree, part: Tree, i: jax.Array) -> Tree:
    return jax.tree.map(lambda x, y: lax.dynamic_update_index_in_dim(x, y, i, 0), tree, part)
