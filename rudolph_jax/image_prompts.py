"""Image prompts: given codes of an image, the rest to be sampled, for inpainting and outpainting.

Source: `rudalle.image_prompts.ImagePrompts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from clip_jax.arguments import check_array, check_flag, check_integer, describe
from clip_jax.errors import InputError
from clip_jax.image import open_image
from rudolph_jax.pretrained import PretrainedRudolph, check_rudolph

UNSET = -1  # a token to sample
SIDES = ("up", "down", "left", "right")


def keep_borders(
    rudolph: PretrainedRudolph,
    image: Any,
    borders: Mapping[str, int],
    *,
    crop_first: bool = False,
) -> np.ndarray:
    """Returns int32[image tokens]: the codes of an image's borders, UNSET elsewhere.

    image: whatever `clip_jax.image.open_image` takes.
    borders: width in tokens (8 pixels in the published models) of any of "up", "down", "left",
        "right". One that is as wide as the image keeps all of it.
    crop_first: encode each border alone, so that its codes do not depend on the rest.
    """
    check_rudolph(rudolph)
    check_flag("crop_first", crop_first)
    d, patch = rudolph.config.image_tokens_per_side, rudolph.vqgan.config.patch_size
    if not isinstance(borders, Mapping):
        raise InputError(
            f"borders are {describe(borders)}; expected tokens by side, such as {{'up': 4}}"
        )
    unknown = [side for side in borders if side not in SIDES]
    if unknown:
        raise InputError(f"borders name {unknown[0]!r}; expected any of {', '.join(SIDES)}")
    for side, width in borders.items():
        check_integer(f"border {side}", width, 0, d, wanted=f"0 to {d} tokens")
    opened = open_image(image)
    widest = max(borders.values(), default=0) * patch
    width, height = opened.size
    if min(width, height) < widest:
        raise InputError(
            f"the image is {width}x{height} pixels, smaller than its border of "
            f"{widest}; expected at least that on each side"
        )
    if not crop_first:
        codes = rudolph.encode_images([opened])[0].reshape(d, d)
    else:
        codes = _encode_borders(rudolph, opened, borders)
    kept = np.zeros((d, d), bool)
    for side, width in borders.items():
        kept[_border_slices(side, width, d)] = True
    return np.where(kept, codes, UNSET).astype(np.int32).ravel()


def keep_mask(rudolph: PretrainedRudolph, image: Any, kept: np.ndarray) -> np.ndarray:
    """Returns int32[image tokens]: an image's codes where bool[d, d] `kept`, UNSET elsewhere."""
    check_rudolph(rudolph)
    d = rudolph.config.image_tokens_per_side
    kept = np.asarray(check_array("kept", kept))
    if kept.shape != (d, d) or kept.dtype != bool:
        raise InputError(f"kept is {kept.dtype}{list(kept.shape)}; expected bool[{d}, {d}]")
    codes = rudolph.encode_images([image])[0]
    return np.where(kept.ravel(), codes, UNSET).astype(np.int32)


def _encode_borders(
    rudolph: PretrainedRudolph, opened: Any, borders: Mapping[str, int]
) -> np.ndarray:
    """Encodes int32[d, d]; where borders meet, up covers left, then right, then down."""
    d, patch = rudolph.config.image_tokens_per_side, rudolph.vqgan.config.patch_size
    pixels = rudolph.pixels([opened])[0]
    codes = np.zeros((d, d), np.int32)
    for side in ("down", "right", "left", "up"):
        width = borders.get(side, 0)
        if width:
            strip = _border_slices(side, width, d)
            rows, columns = (slice(*(n * patch for n in part.indices(d)[:2])) for part in strip)
            strip_codes = np.asarray(rudolph.vqgan.encode(pixels[None, rows, columns]))
            codes[strip] = strip_codes.reshape(codes[strip].shape)
    return codes


def _border_slices(side: str, width: int, d: int) -> tuple[slice, slice]:
    part = slice(0, width) if side in ("up", "left") else slice(d - width, d)
    return (part, slice(0, d)) if side in ("up", "down") else (slice(0, d), part)
