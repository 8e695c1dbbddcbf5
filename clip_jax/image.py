"""Pictures to pixels: the one place where either model's preprocessing happens.

ruCLIP: RGB, centre square, resize of that square (bilinear), normalise.
OpenAI: resize of the shorter side (bicubic), centre square, RGB, normalise.
Pillow resizes, because the originals do, so that pixels agree.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from clip_jax.config import ImageConfig
from clip_jax.errors import InputError

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def open_image(source: Image.Image | np.ndarray | bytes | str | Path) -> Image.Image:
    """A decoded picture from a path, encoded bytes, uint8[H, W], uint8[H, W, 3 or 4], or Pillow.

    Anything that cannot be decoded whole raises InputError.
    """
    if isinstance(source, Image.Image):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim not in (2, 3):
            raise InputError(
                f"image array is {source.dtype}{list(source.shape)}; expected uint8[H, W, 3]"
            )
        return Image.fromarray(source)
    name = "image bytes" if isinstance(source, bytes) else str(source)
    try:
        image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        image.load()
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such image") from error
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,  # Pillow's word for a broken PNG
        ValueError,
    ) as error:
        raise InputError(f"{name}: not a readable image ({error})".replace("\n", " ")) from error
    return image


def resize_square(image: Image.Image, size: int, config: ImageConfig) -> np.ndarray:
    """uint8[size, size, 3]: what is left of a picture after crop and resize, before normalising."""
    resample = RESAMPLE[config.resample]
    if config.crop == "square_then_resize":
        return np.asarray(centre_square(image).resize((size, size), resample))
    # Resize rounds the longer side down; CenterCrop rounds half an offset to even.
    short = min(image.size)
    w, h = (size * side // short for side in image.size)
    image = image.resize((w, h), resample)
    image = _crop(image, round((w - size) / 2), round((h - size) / 2), size)
    return np.asarray(image.convert("RGB"))


def centre_square(image: Image.Image) -> Image.Image:
    """The largest square around the centre, RGB, as ruCLIP cuts it."""
    image = image if image.mode == "RGB" else image.convert("RGB")
    # RandomResizedCrop(scale=1, ratio=1) falls back to this centre, odd pixel to the right.
    # (Where the sides differ by one it draws an offset of 0 or 1: here always 0.)
    w, h = image.size
    short = min(w, h)
    return _crop(image, (w - short) // 2, (h - short) // 2, short)


def normalize_pixels(pixels: np.ndarray, config: ImageConfig) -> np.ndarray:
    """uint8[..., 3] -> float32[..., 3]: ((pixels / 255) - mean) / std."""
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def preprocess(
    images: list[Image.Image | np.ndarray | bytes | str | Path], size: int, config: ImageConfig
) -> np.ndarray:
    """float32[B, size, size, 3], normalised."""
    squares = [resize_square(open_image(image), size, config) for image in images]
    pixels = np.stack(squares) if squares else np.zeros((0, size, size, 3), np.uint8)
    return normalize_pixels(pixels, config)


def _crop(image: Image.Image, left: int, top: int, side: int) -> Image.Image:
    # Cropping before the resize, as torchvision does: `resize(box=...)` blends across the edge.
    return image.crop((left, top, left + side, top + side))
