"""Where each parameter of Clip lies: path pattern -> logical axes, one row a kind of parameter.

Paths are those of the stacked form, joined by "/". `experiments/parallel.py` maps logical axes to
mesh axes. A parameter that no row names raises there.
"""

from __future__ import annotations

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
    (TOWER + r"position_embedding", (None, "embed")),
    (r"visual/class_embedding", (None,)),
    (r"visual/patch_embedding/kernel", (None, None, None, "embed")),
    (r"text/token_embedding", ("vocab", "embed")),
)
