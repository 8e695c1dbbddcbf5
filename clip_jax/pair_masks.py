"""Pairs of an image's and a caption's embedding: how alike, which belong together, which count.

# R rows, C columns, E embedding
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax.tile_loop import Tree

# Of pairs that are left out. Finite, so that a difference of two of them is a number.
LOWEST = jnp.finfo(jnp.float32).min


class Rows(NamedTuple):
    """features: float[R, E]. number: int32[R], a row's number in the whole batch.

    group: int[R], equal for rows that say the same. real: bool[R], False for padding.
    """

    features: jax.Array
    number: jax.Array
    group: jax.Array
    real: jax.Array


def products(rows: Rows, columns: Rows) -> jax.Array:
    """float32[R, C]; float32 features are multiplied as float32 on every kind of device."""
    return jnp.einsum("RE,CE->RC", rows.features, columns.features, **exactly(rows.features))


def exactly(features: jax.Array) -> dict[str, object]:
    """How einsum multiplies features: at their own precision, summed in float32."""
    whole = features.dtype == jnp.float32
    return {
        "precision": lax.Precision.HIGHEST if whole else None,
        "preferred_element_type": jnp.float32,
    }


def relation(rows: Rows, columns: Rows, duplicates: str) -> tuple[jax.Array, jax.Array]:
    """Which pairs count and which belong together, both bool[R, C].

    For the groups a b a, "counts" and then "belongs":

        negatives  111 100    positives  111 101    masked  110 100
                   111 010               111 010            111 010
                   111 001               111 101            011 001
    """
    real = rows.real[:, None] & columns.real[None, :]
    own = rows.number[:, None] == columns.number[None, :]
    alike = rows.group[:, None] == columns.group[None, :]
    if duplicates == "positives":
        return real, real & alike
    if duplicates == "masked":
        return real & (own | ~alike), real & own
    return real, real & own


class Best(NamedTuple):
    """The most similar partner met so far; of equal ones the first in the whole batch.

    similarity: float32[R]. number: int32[R], the partner's. right: bool[R], whether it belongs.
    """

    similarity: jax.Array
    number: jax.Array
    right: jax.Array

    @staticmethod
    def start(shape: tuple[int, ...]) -> Best:
        none = jnp.full(shape, jnp.iinfo(jnp.int32).max)
        return Best(jnp.full(shape, LOWEST), none, jnp.zeros(shape, bool))

    @staticmethod
    def of(logits: jax.Array, belongs: jax.Array, number: jax.Array, axis: int) -> Best:
        """Among the partners along an axis; number: theirs, in a shape that broadcasts."""
        top = logits.max(axis, keepdims=True)
        none = jnp.iinfo(jnp.int32).max
        first = jnp.where(logits == top, number, none).min(axis, keepdims=True)
        right = (belongs & (number == first)).any(axis)
        return Best(top.squeeze(axis), first.squeeze(axis), right)

    @staticmethod
    def merge(several: Best) -> Best:
        """[D, R] -> [R]"""
        return Best.of(several.similarity, several.right, several.number, axis=0)

    def accuracy(self) -> jax.Array:
        return self.right.mean(dtype=jnp.float32)


def stack(*trees: Tree) -> Tree:
    """[R] of each -> [D, R]"""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
