"""The symmetric contrastive loss, for a whole batch or for a batch sharded over devices.

# B local batch, G global batch, E embedding

Source: Radford et al. 2021, figure 3.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def contrastive_loss(
    image: jax.Array,
    text: jax.Array,
    scale: jax.Array,
    *,
    groups: jax.Array | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Mean cross-entropy of picture-to-text and text-to-picture choices.

    image, text: float32[B, E], unit rows that belong together by position.
    scale: float32[], what similarities are multiplied by (not its logarithm).
    groups: int32[B] or None. Rows of one group count as right answers for one another, in equal
        shares: duplicate captions are then no false negatives. None: each row is its own group.
    axis_name: mesh axis over which the batch is sharded, inside `shard_map` or `pmap`: this
        shard's rows are set against the columns of all shards. None: the batch is whole.

    Returns the loss float32[] (of this shard's rows: its mean over shards is the batch's loss)
    and {"image_accuracy", "text_accuracy"}: how often the most similar column is a right one.
    """
    rows = groups if groups is not None else _row_numbers(image.shape[0], axis_name)
    columns = _gather(rows, axis_name)
    target = (rows[:, None] == columns[None, :]).astype(jnp.float32)
    target = target / target.sum(axis=1, keepdims=True)
    image_loss, image_accuracy = _choose(image, _gather(text, axis_name), scale, target)
    text_loss, text_accuracy = _choose(text, _gather(image, axis_name), scale, target)
    metrics = {"image_accuracy": image_accuracy, "text_accuracy": text_accuracy}
    return (image_loss + text_loss) / 2, metrics


def _choose(
    rows: jax.Array, columns: jax.Array, scale: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logits = scale * jnp.einsum("BE,GE->BG", rows, columns)
    loss = -(target * jax.nn.log_softmax(logits, axis=1)).sum(axis=1).mean()
    chosen = jnp.take_along_axis(target, logits.argmax(axis=1)[:, None], axis=1)
    return loss, (chosen > 0).mean(dtype=jnp.float32)


def _row_numbers(batch: int, axis_name: str | None) -> jax.Array:
    first = 0 if axis_name is None else lax.axis_index(axis_name) * batch
    return first + jnp.arange(batch)


def _gather(x: jax.Array, axis_name: str | None) -> jax.Array:
    """[B, ...] -> [G, ...], in the order of the shards."""
    return x if axis_name is None else lax.all_gather(x, axis_name, tiled=True)
