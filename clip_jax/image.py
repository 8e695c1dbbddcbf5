"""Preprocessing of images to pixel values, for both kinds of model.

ruCLIP: RGB, centre crop to a square, resize (bilinear), normalise.
OpenAI: resize of the shorter side (bicubic), centre crop to a square, RGB, normalise.
Resized by Pillow, as in the originals, so that pixels agree. `image_file.py` opens images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from clip_jax.config import Background, ImageConfig
from clip_jax.image_file import ImageSource, open_image

__all__ = [
    "PREPROCESSING_VERSION", "RESAMPLE", "center_crop_square", "normalize_pixels", "open_image",
    "preprocess", "resize_square", "to_rgb",
]  # fmt: skip

# Raised when the same file and config give other pixels than before, so that what was computed
# from them (embeddings, features, results) is not reused. 2: orientation, 16 bits, backgrounds.
PREPROCESSING_VERSION = 2

RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SUPPORT = {Image.Resampling.BILINEAR: 1.0, Image.Resampling.BICUBIC: 2.0}  # radius, in pixels
# An image whose long side would be more than so many times the model's is cropped before the
# resize: 20000x1 pixels would become 4,480,000x224, of which 224x224 are used.
MAX_RESIZED_ASPECT = 128


def to_rgb(image: Image.Image, background: Background) -> Image.Image:
    """Converts an image of `open_image` to RGB.

    background: the colour that shows through transparent pixels; None drops the alpha channel as
    the original packages do, so that hidden colours appear.
    """
    if background is None or not image.has_transparency_data:
        return image if image.mode == "RGB" else _drop_alpha(image)
    canvas = Image.new("RGBA", image.size, (*background, 255))
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas.convert("RGB")


def resize_square(image: Image.Image, size: int, config: ImageConfig) -> np.ndarray:
    """Crops and resizes an image to uint8[size, size, 3], not normalised."""
    resample = RESAMPLE[config.resample]
    if config.crop == "square_then_resize":
        square = center_crop_square(image, config.background)
        return np.asarray(square.resize((size, size), resample))
    if config.background is not None:
        image = to_rgb(image, config.background)
    # Resize rounds the longer side down; CenterCrop rounds half an offset to even.
    short = min(image.size)
    w, h = (size * side // short for side in image.size)
    left, top = round((w - size) / 2), round((h - size) / 2)
    if max(w, h) > MAX_RESIZED_ASPECT * size:
        image = _resize_window(image, (w, h), (left, top), size, resample)
    else:
        image = _crop(image.resize((w, h), resample), left, top, size)
    return np.asarray(_drop_alpha(image))


def center_crop_square(image: Image.Image, background: Background) -> Image.Image:
    """Crops an image to the largest centred square, RGB, as ruCLIP does.

    background: as in `to_rgb`.
    """
    image = to_rgb(image, background)
    # RandomResizedCrop(scale=1, ratio=1) falls back to this centre, odd pixel to the right.
    # (Where the sides differ by one it draws an offset of 0 or 1: here always 0.)
    w, h = image.size
    short = min(w, h)
    return _crop(image, (w - short) // 2, (h - short) // 2, short)


def normalize_pixels(pixels: np.ndarray, config: ImageConfig) -> np.ndarray:
    """Normalises uint8[..., 3] to float32[..., 3]: ((pixels / 255) - mean) / std."""
    mean, std = np.array(config.mean, np.float32), np.array(config.std, np.float32)
    return (pixels.astype(np.float32) / np.float32(255) - mean) / std


def preprocess(images: Sequence[ImageSource], size: int, config: ImageConfig) -> np.ndarray:
    """Preprocesses images to normalised pixels, float32[B, size, size, 3].

    images: as `open_image` takes them.
    """
    squares = [resize_square(open_image(image), size, config) for image in images]
    pixels = np.stack(squares) if squares else np.zeros((0, size, size, 3), np.uint8)
    return normalize_pixels(pixels, config)


def _resize_window(
    image: Image.Image,
    resized: tuple[int, int],
    corner: tuple[int, int],
    size: int,
    resample: Image.Resampling,
) -> Image.Image:
    """Crops the square at `corner` of the image resized to `resized`, resizing only its window.

    Pillow keeps a box in float32 and may order its two passes otherwise for a window than for the
    whole, so that values can differ by rounding: only for extreme shapes.
    """
    spans, box = [], []
    for length, target, first in zip(image.size, resized, corner, strict=True):
        scale = length / target
        start, stop = first * scale, (first + size) * scale
        margin = SUPPORT[resample] * max(scale, 1.0) + 1
        low, high = max(int(start - margin), 0), min(math.ceil(stop + margin), length)
        spans.append((low, high))
        box.append((start - low, stop - low))
    (left, right), (top, bottom) = spans
    window = image.crop((left, top, right, bottom))
    return window.resize((size, size), resample, (box[0][0], box[1][0], box[0][1], box[1][1]))


def _drop_alpha(image: Image.Image) -> Image.Image:
    """Converts to RGB with the colours that are hidden by transparency."""
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        # Pillow warns that a palette's transparency is lost, which is what is wanted here.
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _crop(image: Image.Image, left: int, top: int, side: int) -> Image.Image:
    # Cropping before the resize, as torchvision does: `resize(box=...)` blends across the edge.
    return image.crop((left, top, left + side, top + side))
