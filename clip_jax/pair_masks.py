"""Similarities of image and caption embeddings, masks of their pairs, and top-1 accuracy.

# R rows, C columns, E embedding, D shards or states
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax.tile_loop import Tree

# Logit of a masked pair. Finite, so that a difference of two of them is a number.
MASK_VALUE = jnp.finfo(jnp.float32).min


class Embeddings(NamedTuple):
    """Holds one side of a batch.

    features: float[R, E].
    index: int32[R], the row's index in the global batch.
    group: int[R] or uint[R], equal for duplicates such as rows of the same caption.
    valid: bool[R], False for padding.
    """

    features: jax.Array
    index: jax.Array
    group: jax.Array
    valid: jax.Array


def similarities(rows: Embeddings, columns: Embeddings) -> jax.Array:
    """Returns dot products, float32[R, C]; those of float32 features at full precision."""
    return jnp.einsum("RE,CE->RC", rows.features, columns.features, **einsum_options(rows.features))


def einsum_options(features: jax.Array) -> dict[str, object]:
    """Returns options of einsum: products at the features' own precision, sums in float32.

    A TPU would otherwise round float32 operands to bfloat16.
    """
    float32 = features.dtype == jnp.float32
    return {
        "precision": lax.Precision.HIGHEST if float32 else None,
        "preferred_element_type": jnp.float32,
    }


def pair_masks(
    rows: Embeddings, columns: Embeddings, duplicates: str
) -> tuple[jax.Array, jax.Array]:
    """Returns the valid pairs and the positive pairs among them, both bool[R, C].

    For the groups a b a, "valid" and then "positive":

        negatives  111 100    positives  111 101    masked  110 100
                   111 010               111 010            111 010
                   111 001               111 101            011 001
    """
    valid = rows.valid[:, None] & columns.valid[None, :]
    diagonal = rows.index[:, None] == columns.index[None, :]
    same_group = rows.group[:, None] == columns.group[None, :]
    if duplicates == "positives":
        return valid, valid & same_group
    if duplicates == "masked":
        return valid & (diagonal | ~same_group), valid & diagonal
    return valid, valid & diagonal


class Top1(NamedTuple):
    """Holds each row's most similar partner so far; of equal ones the first in the global batch.

    similarity: float32[R].
    index: int32[R], the partner's.
    is_positive: bool[R], whether the pair is a positive one.
    """

    similarity: jax.Array
    index: jax.Array
    is_positive: jax.Array

    @staticmethod
    def init(shape: tuple[int, ...]) -> Top1:
        """Returns the state before any partner."""
        none = jnp.full(shape, jnp.iinfo(jnp.int32).max)
        return Top1(jnp.full(shape, MASK_VALUE), none, jnp.zeros(shape, bool))

    @staticmethod
    def of(logits: jax.Array, positive: jax.Array, index: jax.Array, axis: int) -> Top1:
        """Finds the top partner along an axis.

        index: the partners', in a shape that broadcasts to that of the logits.
        """
        top = logits.max(axis, keepdims=True)
        none = jnp.iinfo(jnp.int32).max
        first = jnp.where(logits == top, index, none).min(axis, keepdims=True)
        is_positive = (positive & (index == first)).any(axis)
        return Top1(top.squeeze(axis), first.squeeze(axis), is_positive)

    @staticmethod
    def merge(states: Top1) -> Top1:
        """Merges states [D, R] to one [R]."""
        return Top1.of(states.similarity, states.is_positive, states.index, axis=0)

    def accuracy(self) -> jax.Array:
        """Returns the mean of `is_positive`, float32[]."""
        return self.is_positive.mean(dtype=jnp.float32)


def stack(*trees: Tree) -> Tree:
    """Stacks trees of leaves [R] to one of leaves [D, R]."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
