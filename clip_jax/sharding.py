"""Where each parameter of Clip and RuclipSmall lies: path pattern -> logical axes, a row a kind.

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

# Mesh axes that a batch's rows are spread over while a step of training is traced.
_row_axes: ContextVar[tuple[str, ...]] = ContextVar("row_axes", default=())


@contextlib.contextmanager
def batch_sharding_axes(axes: tuple[str, ...]) -> Iterator[None]:
    """Within it, and under a mesh, models keep the rows of their activations on these axes.

    axes: of the batch, the last of which splits the width of tables, too; () leaves all to the
    compiler. Outside of it models run wherever their arguments are.
    """
    token = _row_axes.set(axes)
    try:
        yield
    finally:
        _row_axes.reset(token)


def constrain_batch(x: jax.Array) -> jax.Array:
    """x[B, ...] with its rows spread as a batch is, and nothing else of it.

    What enters a layer has to be told: the compiler would else take the split of the embedding
    tables' width for the activations' own, and add up partial products instead of gathering
    kernels.
    """
    axes = _row_axes.get()
    return _placed(x, PartitionSpec(axes)) if axes else x


def constrain_embedding(x: jax.Array) -> jax.Array:
    """x[B, S, D] from a table whose width is split, with its rows spread.

    Each device looks its part of the width up for the rows of all that share the table, and they
    exchange parts. Left to itself the compiler gives every device all rows.
    """
    axes = _row_axes.get()
    return constrain_batch(_placed(x, PartitionSpec(axes[:-1], None, axes[-1]))) if axes else x


def _placed(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    without_mesh = jax.sharding.get_abstract_mesh().empty
    return x if without_mesh else lax.with_sharding_constraint(x, spec)
