"""JPEG files decoded at a half, a quarter or an eighth of their size: less work, other pixels."""

from __future__ import annotations

import io

from PIL import Image, UnidentifiedImageError

from clip_jax.errors import InputError
from clip_jax.image import open_image


def open_draft(picture: bytes, side: int) -> Image.Image:
    """A decoded picture with sides of at least `side` pixels, or its own where they are shorter.

    Other formats than JPEG are decoded whole. What cannot be decoded raises InputError.
    """
    try:
        image = Image.open(io.BytesIO(picture))
        if image.draft("RGB", (side, side)) is None:
            return open_image(picture)
        image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"image bytes: not a readable image ({reason})") from error
    return image
