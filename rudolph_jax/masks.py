"""Attention masks: bool[T, T], a row for each query, a column for each key; True: attends.

Text attends to everything before it, and the image to all left text. Within the image a query
attends, of the tokens before it and itself, to

    row     as many as a row has, and itself
    column  those straight above
    conv    those within a square of side `kernel` around it
    causal  all

With one text token on either side of a 2x2 image (1 attends, . is masked):

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

from clip_jax.errors import InputError
from rudolph_jax.config import MaskType, RudolphConfig
from rudolph_jax.layout import Layout

PUBLISHED_MASK_TYPES = ("row", "column", "conv", "last_conv")
MASK_TYPES = (*PUBLISHED_MASK_TYPES, "causal")


def layer_mask_types(config: RudolphConfig) -> tuple[str, ...]:
    """Returns the mask type of each layer."""
    return tuple(_mask_type(config, layer) for layer in range(config.layers))


def mask(config: RudolphConfig, mask_type: str) -> np.ndarray:
    """Returns bool[T, T] for one of `mask_types`; another name raises InputError."""
    layout, d = Layout(config), config.image_tokens_per_side
    allowed = np.tril(np.ones((layout.sequence_length, layout.sequence_length), bool))
    query, key = np.indices((layout.image_length, layout.image_length))
    causal = key <= query
    own = config.custom_mask
    if own is not None and mask_type == own.name:
        image = causal & _own_mask(own, query, key, d) | (key == query)
    elif mask_type == "causal":
        image = causal
    elif mask_type == "row":
        image = causal & (query - key <= d)
    elif mask_type == "column":
        image = causal & ((query - key) % d == 0)
    elif mask_type in ("conv", "last_conv"):
        kernel = config.kernel_size if mask_type == "conv" else config.last_kernel_size
        image = causal & _within_kernel(query, key, kernel // 2, d, config.conv_edges)
    else:
        known = ", ".join(mask_types(config))
        raise InputError(f"mask type is {mask_type!r}; expected one of {known}")
    allowed[layout.image, layout.image] = image
    return allowed


def mask_types(config: RudolphConfig) -> tuple[str, ...]:
    """Returns the names of the masks that a config can have: MASK_TYPES and its own."""
    own = config.custom_mask
    return MASK_TYPES if own is None else (*MASK_TYPES, own.name)


def _own_mask(own: MaskType, query: np.ndarray, key: np.ndarray, d: int) -> np.ndarray:
    allowed = np.asarray(own.attends(query, key, d))
    if allowed.shape != query.shape or allowed.dtype != bool:
        raise InputError(
            f"mask {own.name!r} is {allowed.dtype}{list(allowed.shape)}; expected "
            f"bool{list(query.shape)}"
        )
    return allowed


def _mask_type(config: RudolphConfig, layer: int) -> str:
    if config.mask_order in mask_types(config):
        return config.mask_order
    if (layer - 1) % 4 == 0:
        return "column"
    if layer == config.layers - 1:
        return "last_conv"
    if config.mask_order == "rudolph" and (layer - 3) % 4 == 0:
        return "conv"
    return "row"


def _within_kernel(
    query: np.ndarray, key: np.ndarray, radius: int, d: int, edges: str
) -> np.ndarray:
    """Tests which tokens of an image are at most `radius` rows and columns apart."""
    within = np.ones_like(query, bool)
    for a, b in zip(np.divmod(query, d), np.divmod(key, d), strict=True):
        distance = np.abs(a - b)
        if edges == "wrap":
            distance = np.minimum(distance, d - distance)
        within &= distance <= radius
    return within
