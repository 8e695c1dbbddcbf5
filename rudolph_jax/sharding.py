"""Logical axes of Rudolph's parameters, by path pattern, one row for each kind of parameter.

Paths are those of the stacked form, joined by "/". `experiments/training/partitioning.py` maps
logical axes to mesh axes. A parameter that no row names raises there.
"""

from __future__ import annotations

# "layers" is the scan's leading axis; "embed" the residual width; "heads" and "mlp" what tensor
# parallelism splits; "vocab" the head's columns. The tables' rows are not split: one more than a
# text is long divides nothing, and looking up split rows costs a gather a token.
AXES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"(text|image)_embedding", (None, "embed")),
    (r"(left|right)_position_embedding", (None, "embed")),
    (r"image_(row|column)_embedding", (None, "embed")),
    (r"layers/attention/qkv_kernel", ("layers", "embed", None, "heads", None)),
    (r"layers/attention/qkv_bias", ("layers", None, "heads", None)),
    (r"layers/attention/out_kernel", ("layers", "heads", None, "embed")),
    (r"layers/attention/out_bias", ("layers", None)),
    (r"layers/mlp/in_kernel", ("layers", "embed", "mlp")),
    (r"layers/mlp/in_bias", ("layers", "mlp")),
    (r"layers/mlp/out_kernel", ("layers", "mlp", "embed")),
    (r"layers/mlp/out_bias", ("layers", None)),
    (r"layers/(attention|mlp)(_out)?_norm/(scale|bias)", ("layers", None)),
    (r"(final|head)_norm/(scale|bias)", (None,)),
    (r"head/kernel", ("embed", "vocab")),
    (r"head/bias", ("vocab",)),
)
