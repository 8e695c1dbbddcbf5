"""Logical axes of each parameter of Clip and RuclipSmall: a table of path patterns.

Paths are those of the stacked form, joined by "/". `experiments/training/partitioning.py` maps
logical axes to mesh axes. A parameter that no row names raises there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
from jax import lax
from jax.sharding import PartitionSpec

TOWER = r"(visual|text)/"
LAYER = TOWER + r"layers/"

# "layers" is the scan's leading axis; "embed" the residual width; "heads" and "mlp" what tensor
# parallelism splits; "vocab" the token table; None is never split.
AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"logit_(scale|bias)", ()),
    (LAYER + r"attention/qkv_kernel", ("layers", "embed", None, "heads", None)),
    (LAYER + r"attention/qkv_bias", ("layers", None, "heads", None)),
    (LAYER + r"attention/out_kernel", ("layers", "heads", None, "embed")),
    (LAYER + r"attention/out_bias", ("layers", None)),
    (LAYER + r"mlp/in_kernel", ("layers", "embed", "mlp")),
    (LAYER + r"mlp/in_bias", ("layers", "mlp")),
    (LAYER + r"mlp/out_kernel", ("layers", "mlp", "embed")),
    (LAYER + r"mlp/out_bias", ("layers", None)),
    (LAYER + r"(attention|mlp)_norm/(scale|bias)", ("layers", None)),
    (TOWER + r"(pre|post|final)_norm/(scale|bias)", (None,)),
    (TOWER + r"projection", ("embed", None)),
    (r"(visual|text)_projection/(in|out)_kernel", ("embed", None)),  # ruCLIP Small's
    (r"(visual|text)_projection/norm/(scale|bias)", (None,)),
    (TOWER + r"position_embedding", (None, "embed")),
    (r"visual/class_embedding", (None,)),
    (r"visual/patch_embedding/kernel", (None, None, None, "embed")),
    (r"text/token_embedding", ("vocab", "embed")),
)

# Mesh axes that a batch is sharded over while a training step is traced.
_batch_axes: ContextVar[tuple[str, ...]] = ContextVar("batch_axes", default=())


@contextlib.contextmanager
def batch_sharding_axes(axes: tuple[str, ...]) -> Iterator[None]:
    """Makes models constrain the batch axis of activations to these mesh axes, under a mesh.

    axes: the batch's, of which the last also shards the width of tables; () leaves everything to
        the compiler, as outside of this context.
    """
    token = _batch_axes.set(axes)
    try:
        yield
    finally:
        _batch_axes.reset(token)


def constrain_batch(x: jax.Array) -> jax.Array:
    """Constrains x[B, ...] to be sharded over its first axis alone, as the batch is.

    Layer inputs need it: the compiler would otherwise propagate the sharding of the embedding
    tables' width to the activations, and sum partial products instead of gathering kernels.
    """
    axes = _batch_axes.get()
    return _constrain(x, PartitionSpec(axes)) if axes else x


def constrain_embedding(x: jax.Array) -> jax.Array:
    """Constrains x[B, S, D], looked up in a table whose width is sharded, as `constrain_batch`.

    Each device looks up its slice of the width for the rows of all devices that share the table,
    and they exchange slices (all-to-all). Without the constraint the compiler replicates all rows.
    """
    axes = _batch_axes.get()
    return constrain_batch(_constrain(x, PartitionSpec(axes[:-1], None, axes[-1]))) if axes else x


def _constrain(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    without_mesh = jax.sharding.get_abstract_mesh().empty
    return x if without_mesh else lax.with_sharding_constraint(x, spec)
