"""A loop over all pairs of a batch's rows in tiles, on one device or sharded over several.

One side, the rows, stays in place. The other, the columns, is all-gathered ("tiled") or passed
around a ring of devices ("ring"). Memory does not grow with the number of pairs.

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
class TilePlan:
    """Sets how pairs are split into tiles.

    form: "tiled" or "ring".
    axis_name: mesh axis, or axes, over which the batch is sharded; None: it is not.
    tile: most rows, and columns, of a tile.
    """

    form: str
    axis_name: AxisName
    tile: int


@dataclasses.dataclass(frozen=True)
class TileKernel:
    """Defines the computation at a tile and the reduction of its results.

    tile_fn: (rows, columns, row state, column state), each of one tile, -> the new states, and
        addends of the totals.
    init_rows, init_columns: leading sizes -> initial states.
    init_totals: zeros.
    reduce_columns: for the tiled form over devices: (this shard's states of all shards' columns,
        axis name) -> the states of this shard's columns, reduced over all shards.
    """

    tile_fn: Callable[[Tree, Tree, Tree, Tree], tuple[Tree, Tree, Tree]]
    init_rows: Callable[[tuple[int, ...]], Tree]
    init_columns: Callable[[tuple[int, ...]], Tree]
    init_totals: Tree
    reduce_columns: Callable[[Tree, AxisName], Tree]


def map_tiles(
    plan: TilePlan, kernel: TileKernel, rows: Tree, columns: Tree
) -> tuple[Tree, Tree, Tree]:
    """Applies a kernel once to every pair of this shard's rows and all shards' columns.

    rows, columns: trees of arrays [B, ...].

    Returns the states [B, ...] of this shard's rows, those of this shard's columns reduced over
    all shards, and this shard's totals.

    Sides that a tile does not divide are split evenly and padded with zeros: a tree whose valid
    rows matter has to carry a mask of them.
    """
    batch = jax.tree.leaves(rows)[0].shape[0]
    axis_name = plan.axis_name
    form = "whole" if axis_name is None or lax.axis_size(axis_name) == 1 else plan.form
    if form == "tiled":
        columns = jax.tree.map(lambda x: lax.all_gather(x, axis_name, tiled=True), columns)
    num_columns = jax.tree.leaves(columns)[0].shape[0]
    rows, columns = _split(rows, plan.tile), _split(columns, plan.tile)
    init_rows, init_columns = kernel.init_rows(_sizes(rows)), kernel.init_columns(_sizes(columns))
    states = pvary_like((init_rows, init_columns, kernel.init_totals), (rows, columns))
    if form == "ring":
        states = _ring_loop(axis_name, kernel.tile_fn, rows, columns, states)
    else:
        states = _tile_loop(kernel.tile_fn, rows, columns, states)
    row_state, column_state, totals = states
    row_state, column_state = _join(row_state, batch), _join(column_state, num_columns)
    if form == "tiled":
        column_state = kernel.reduce_columns(column_state, axis_name)
    return row_state, column_state, totals


def pvary_like(tree: Tree, like: Tree) -> Tree:
    """Marks values as varying over the shards wherever any leaf of `like` varies.

    Where JAX tracks this (`shard_map` with check_vma), a loop's carry needs the mark, and the
    gradients of replicated values are then summed over the shards. Elsewhere nothing is done.
    Unlike `lax.pcast`, this neither takes the axes nor minds what is marked already.
    """
    false = jnp.bool_(False)
    for leaf in jax.tree.leaves(like):
        false |= (leaf[(0,) * leaf.ndim] == 0) & False
    return jax.tree.map(lambda x: jnp.where(false, x, x), tree)


def reduce_scatter_columns(partial_sums: Tree, axis_name: AxisName) -> Tree:
    """Sums states over the shards, [D * B, ...] -> [B, ...]: a `reduce_columns` of sums."""
    return jax.tree.map(lambda x: lax.psum_scatter(x, axis_name, tiled=True), partial_sums)


def all_to_all_columns(states: Tree, axis_name: AxisName) -> Tree:
    """Exchanges this shard's states [D * B] of all columns for all shards' [D, B] of its own.

    Leaves are float32, int32 or bool; one all-to-all of 32-bit words serves them all.
    """
    leaves, tree = jax.tree.flatten(states)
    words = [lax.bitcast_convert_type(_as_word(x), jnp.int32) for x in leaves]
    words = jnp.stack(words).reshape(len(leaves), lax.axis_size(axis_name), -1)
    words = lax.all_to_all(words, axis_name, split_axis=1, concat_axis=1)
    exchanged = [
        lax.bitcast_convert_type(word, _as_word(x).dtype).astype(x.dtype)
        for word, x in zip(words, leaves, strict=True)
    ]
    return tree.unflatten(exchanged)


def _as_word(x: jax.Array) -> jax.Array:
    return x.astype(jnp.int32) if x.dtype == bool else x


def _ring_loop(axis_name, tile_fn, rows, columns, states) -> Tree:
    """Takes as many ring steps as shards, so that columns and their states end where they began."""
    shards = lax.axis_size(axis_name)
    to_next = [(shard, (shard + 1) % shards) for shard in range(shards)]

    def send(tree: Tree) -> Tree:
        return jax.tree.map(lambda x: lax.ppermute(x, axis_name, to_next), tree)

    def ring_step(_: jax.Array, carry: Tree) -> Tree:
        columns, states = carry
        # The columns do not depend on the tiles: they can be sent while those are computed.
        received = send(columns)
        row_state, column_state, totals = _tile_loop(tile_fn, rows, columns, states)
        return received, (row_state, send(column_state), totals)

    return lax.fori_loop(0, shards, ring_step, (columns, states))[1]


def _tile_loop(tile_fn, rows, columns, states) -> Tree:
    """Loops over all tiles of rows [N, T, ...] and columns [M, T, ...].

    One flat loop whose states are updated in place: nested loops would copy them.
    """
    N, M = _sizes(rows)[0], _sizes(columns)[0]

    def step(index: jax.Array, states: Tree) -> Tree:
        row_states, column_states, totals = states
        r, c = index % N, index // N
        row_state, column_state, addends = tile_fn(
            _get(rows, r), _get(columns, c), _get(row_states, r), _get(column_states, c)
        )
        return (
            _set(row_states, row_state, r),
            _set(column_states, column_state, c),
            jax.tree.map(jnp.add, totals, addends),
        )

    return lax.fori_loop(0, N * M, step, states)


def _split(tree: Tree, tile: int) -> Tree:
    """Splits [B, ...] into the fewest tiles, [N, T, ...], with T as small as N allows."""

    def split(x: jax.Array) -> jax.Array:
        N = -(-x.shape[0] // tile)
        T = -(-x.shape[0] // N)
        padding = [(0, N * T - x.shape[0])] + [(0, 0)] * (x.ndim - 1)
        return jnp.pad(x, padding).reshape(N, T, *x.shape[1:])

    return jax.tree.map(split, tree)


def _join(tree: Tree, batch: int) -> Tree:
    """Joins [N, T, ...] to [B, ...], without the padding."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:batch], tree)


def _sizes(tree: Tree) -> tuple[int, int]:
    return jax.tree.leaves(tree)[0].shape[:2]


def _get(tree: Tree, i: jax.Array) -> Tree:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), tree)


def _set(tree: Tree, part: Tree, i: jax.Array) -> Tree:
    return jax.tree.map(lambda x, y: lax.dynamic_update_index_in_dim(x, y, i, 0), tree, part)
