"""Random changes of a training picture, cheap enough for a laptop's share of one core.

Resampling each draw costs more than a tiny model's step, so each picture is rendered once at a few
sizes; a draw cuts or pads one of them.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from clip_jax.config import ImageConfig
from clip_jax.image import resize_square
from experiments.config import AugmentConfig


def render_scales(
    image: Image.Image, size: int, image_config: ImageConfig, augment: AugmentConfig
) -> list[np.ndarray]:
    """One uint8[s, s, 3] for each of `augment.scales`, s that scale times the model's size."""
    return [resize_square(image, round(size * s), image_config) for s in augment.scales]


def draw(
    rendered: list[np.ndarray], size: int, augment: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    """uint8[size, size, 3]: a random scale at a random place, then mirror and colour."""
    picture = rendered[rng.integers(len(rendered))]
    side = len(picture)
    if side > size:
        y, x = rng.integers(side - size + 1, size=2)
        picture = picture[y : y + size, x : x + size]
    elif side < size:
        y, x = rng.integers(size - side + 1, size=2)
        canvas = np.full((size, size, 3), augment.background, np.uint8)
        canvas[y : y + side, x : x + side] = picture
        picture = canvas
    if augment.flip and rng.random() < augment.flip:
        picture = picture[:, ::-1]
    if augment.contrast or augment.brightness or augment.colour:
        picture = _recolour(picture, augment, rng)
    return np.ascontiguousarray(picture)


def _recolour(
    picture: np.ndarray, augment: AugmentConfig, rng: np.random.Generator
) -> np.ndarray:
    contrast = 1 + augment.contrast * rng.uniform(-1, 1)
    shift = 255 * augment.brightness * rng.uniform(-1, 1)
    mixing = np.eye(3) + augment.colour * rng.normal(size=(3, 3)) / 3
    mixing *= contrast / mixing.sum(axis=1, keepdims=True)  # grey stays grey
    values = (picture.reshape(-1, 3) - 127.5).astype(np.float32) @ mixing.T.astype(np.float32)
    values = np.clip(values + np.float32(127.5 + shift), 0, 255)
    return values.astype(np.uint8).reshape(picture.shape)
