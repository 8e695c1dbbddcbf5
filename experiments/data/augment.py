"""Random changes of a training image, cheap enough for a laptop's share of one core.

Resampling each draw would cost more than a tiny model's step, so a small set is rendered a few
times in advance (`render`) and each draw only cuts and recolours (`draw`).
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from clip_jax.config import ImageConfig
from clip_jax.image import RESAMPLE, centre_square, resize_square
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
        picture = Image.fromarray(resize_square(image, size, config))
    else:
        picture = _redraw(centre_square(image, config.background), augment, rng)
        scale = size * np.exp(rng.uniform(*np.log(augment.scale)))
        stretch = np.exp(rng.uniform(-augment.aspect, augment.aspect))
        w, h = (max(round(length), 1) for length in (scale * stretch, scale / stretch))
        picture = picture.resize((w, h), RESAMPLE[config.resample])
        if augment.rotation:
            angle = rng.uniform(-augment.rotation, augment.rotation)
            grey = (augment.background,) * 3
            picture = picture.rotate(angle, Image.Resampling.BICUBIC, fillcolor=grey)
    canvas = Image.new("RGB", (side, side), (augment.background,) * 3)
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(canvas)


def draw(
    rendered: np.ndarray, size: int, augment: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """uint8[size, size, 3]: a random cut of a rendering, recoloured."""
    y, x = rng.integers(2 * augment.shift + 1, size=2)
    picture = rendered[y : y + size, x : x + size]
    grey = rng.random() < augment.grey
    recolour = rng.random() < augment.recolour
    if not (grey or recolour):
        return np.ascontiguousarray(picture)
    hue, saturation, contrast, shift = 0.0, 1.0, 1.0, 0.0
    if recolour:
        hue = rng.normal() * augment.hue
        saturation = np.exp(rng.normal() * augment.saturation)
        contrast = np.exp(rng.normal() * augment.contrast)
        shift = 255 * augment.brightness * rng.normal()
    if grey:
        saturation = 0.0
    cosine, sine = saturation * np.cos(hue), saturation * np.sin(hue)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    matrix = np.float32(contrast * RGB @ turn @ YIQ)
    ink = picture.reshape(-1, 3).astype(np.float32) - augment.background
    # Brightness moves what is drawn and leaves the background alone.
    weight = np.abs(ink).max(axis=1, keepdims=True) / 255
    values = ink @ matrix.T + augment.background + np.float32(shift) * weight
    return np.clip(values, 0, 255).astype(np.uint8).reshape(picture.shape)


def _redraw(picture: Image.Image, augment: AugmentConfig, rng: np.random.Generator) -> Image.Image:
    """Outlines, lines and sharpness at the picture's own size, as another hand might have them."""
    if rng.random() < augment.outline:
        lightest = picture.filter(ImageFilter.MaxFilter(3))
        edges = ImageChops.difference(lightest, picture.filter(ImageFilter.MinFilter(3)))
        pixels = np.array(picture)
        pixels[np.asarray(edges).max(axis=-1) > rng.integers(30, 90)] = 0
        picture = Image.fromarray(pixels)
    if rng.random() < augment.lines:
        change = ImageFilter.MaxFilter if rng.random() < 0.5 else ImageFilter.MinFilter
        picture = picture.filter(change(3))
    if rng.random() < augment.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))
    return picture
