"""Random changes of a training image, cheap enough for a laptop's share of one core.

Resampling each sample would cost more than a tiny model's step, so a small set is rendered a few
times in advance (`render`) and each sample is only cut and recoloured (`augment_rendering`).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from clip_jax.config import ImageConfig
from clip_jax.image import RESAMPLE, center_crop_square, resize_square
from experiments.config.data import AugmentConfig

# NTSC luma and two axes of colour, around which a rotation changes the hue.
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
RGB = np.linalg.inv(YIQ)


def render(
    image: Image.Image,
    size: int,
    config: ImageConfig,
    augment: AugmentConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """uint8[m, m, 3] with m = size + 2 * shift: a random rendering on the background."""
    side = size + 2 * augment.shift
    if not augment.renders:
        view = Image.fromarray(resize_square(image, size, config))
    else:
        view = _redraw(center_crop_square(image, config.background), augment, rng)
        scale = size * np.exp(rng.uniform(*np.log(augment.scale)))
        stretch = np.exp(rng.uniform(-augment.aspect, augment.aspect))
        w, h = (max(round(length), 1) for length in (scale * stretch, scale / stretch))
        view = view.resize((w, h), RESAMPLE[config.resample])
        if augment.rotation:
            angle = rng.uniform(-augment.rotation, augment.rotation)
            grey = (augment.background,) * 3
            view = view.rotate(angle, Image.Resampling.BICUBIC, fillcolor=grey)
    canvas = Image.new("RGB", (side, side), (augment.background,) * 3)
    canvas.paste(view, ((side - view.width) // 2, (side - view.height) // 2))
    return np.asarray(canvas)


def augment_rendering(
    rendered: np.ndarray, size: int, config: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """uint8[size, size, 3]: a random cut of a rendering, recoloured."""
    y, x = rng.integers(2 * config.shift + 1, size=2)
    view = rendered[y : y + size, x : x + size]
    grey = rng.random() < config.grey
    recolour = rng.random() < config.recolour
    if not (grey or recolour):
        return np.ascontiguousarray(view)
    hue, saturation, contrast, shift = 0.0, 1.0, 1.0, 0.0
    if recolour:
        hue = rng.normal() * config.hue
        saturation = np.exp(rng.normal() * config.saturation)
        contrast = np.exp(rng.normal() * config.contrast)
        shift = 255 * config.brightness * rng.normal()
    if grey:
        saturation = 0.0
    cosine, sine = saturation * np.cos(hue), saturation * np.sin(hue)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix = np.float32(contrast * RGB @ turn @ YIQ)
    ink = view.reshape(-1, 3).astype(np.float32) - config.background
    # Brightness moves what is drawn and leaves the background alone.
    weight = np.abs(ink).max(axis=1, keepdims=True) / 255
    values = ink @ matrix.T + config.background + np.float32(shift) * weight
    return np.clip(values, 0, 255).astype(np.uint8).reshape(view.shape)


def _redraw(image: Image.Image, augment: AugmentConfig, rng: np.random.Generator) -> Image.Image:
    """Changes outlines, lines and sharpness at the image's size, as another hand might draw it."""
    if rng.random() < augment.outline:
        lightest = image.filter(ImageFilter.MaxFilter(3))
        edges = ImageChops.difference(lightest, image.filter(ImageFilter.MinFilter(3)))
        pixels = np.array(image)
        pixels[np.asarray(edges).max(axis=-1) > rng.integers(30, 90)] = 0
        image = Image.fromarray(pixels)
    if rng.random() < augment.lines:
        change = ImageFilter.MaxFilter if rng.random() < 0.5 else ImageFilter.MinFilter
        image = image.filter(change(3))
    if rng.random() < augment.blur:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    return image
