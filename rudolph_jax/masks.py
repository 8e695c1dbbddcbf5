"""Which token may look at which: bool[T, T], rows ask, columns answer.

Text looks at everything before it; so does the image at the text. Within the image a token
sees, of the tokens before it and itself,

    row     as many as a row has, and itself
    column  those straight above
    conv    those within a square of side `kernel` around it
    causal  all

With one text token on either side of a 2x2 image (1 may look, . may not):

    row             column          conv, kernel 1  causal
    1 . . . . .     1 . . . . .     1 . . . . .     1 . . . . .
    1 1 . . . .     1 1 . . . .     1 1 . . . .     1 1 . . . .
    1 1 1 . . .     1 . 1 . . .     1 . 1 . . .     1 1 1 . . .
    1 1 1 1 . .     1 1 . 1 . .     1 . . 1 . .     1 1 1 1 . .
    1 . 1 1 1 .     1 . 1 . 1 .     1 . . . 1 .     1 1 1 1 1 .
    1 1 1 1 1 1     1 1 1 1 1 1     1 1 1 1 1 1     1 1 1 1 1 1

Source: `rudolph.model.image_attention` and `rudalle.dalle.image_attention`; no published model has
the causal one.
"""

from __future__ import annotations

import numpy as np

from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import Layout

PUBLISHED_KINDS = ("row", "column", "conv", "last_conv")
KINDS = (*PUBLISHED_KINDS, "causal")


def layer_kinds(config: RudolphConfig) -> tuple[str, ...]:
    """The kind of mask of each layer."""
    return tuple(_kind(config, layer) for layer in range(config.layers))


def mask(config: RudolphConfig, kind: str) -> np.ndarray:
    """bool[T, T] for one of KINDS."""
    layout, d = Layout(config), config.image_tokens_per_side
    allowed = np.tril(np.ones((layout.length, layout.length), bool))
    asking, seen = np.indices((layout.image_length, layout.image_length))
    before = seen <= asking
    if kind == "causal":
        picture = before
    elif kind == "row":
        picture = before & (asking - seen <= d)
    elif kind == "column":
        picture = before & ((asking - seen) % d == 0)
    else:
        kernel = config.kernel_size if kind == "conv" else config.last_kernel_size
        picture = before & _near(asking, seen, kernel // 2, d, config.conv_edges)
    allowed[layout.image, layout.image] = picture
    return allowed


def masks(config: RudolphConfig) -> np.ndarray:
    """bool[len(KINDS), T, T]"""
    return np.stack([mask(config, kind) for kind in KINDS])


def _kind(config: RudolphConfig, layer: int) -> str:
    if config.mask_order in KINDS:
        return config.mask_order
    if (layer - 1) % 4 == 0:
        return "column"
    if layer == config.layers - 1:
        return "last_conv"
    if config.mask_order == "rudolph" and (layer - 3) % 4 == 0:
        return "conv"
    return "row"


def _near(asking: np.ndarray, seen: np.ndarray, reach: int, d: int, edges: str) -> np.ndarray:
    """Whether two tokens of an image lie within `reach` rows and columns of each other."""
    near = np.ones_like(asking, bool)
    for a, b in zip(np.divmod(asking, d), np.divmod(seen, d), strict=True):
        distance = np.abs(a - b)
        if edges == "wrap":
            distance = np.minimum(distance, d - distance)
        near &= distance <= reach
    return near
