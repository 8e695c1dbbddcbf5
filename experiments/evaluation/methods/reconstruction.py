"""Encodes images with an image tokenizer, decodes them and measures the difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from clip_jax.image import open_image, resize_square
from rudolph_jax.image_tokenizer import PretrainedVqgan, image_config


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """images, decoded: float32[N, size, size, 3] from 0 to 1. codes: int32[N, n]."""

    images: np.ndarray
    decoded: np.ndarray
    codes: np.ndarray

    @property
    def absolute_error(self) -> float:
        """Mean over pixels and colours, which go from 0 to 1."""
        return float(np.abs(self.decoded - self.images).mean())

    def codebook_usage(self, codebook_size: int) -> float:
        """The share of the codes that any image has."""
        return len(np.unique(self.codes)) / codebook_size


def reconstruct(
    vqgan: PretrainedVqgan, images: Sequence[Any], size: int, batch_size: int = 128
) -> Reconstruction:
    """Encodes and decodes images, each whatever `clip_jax.image.open_image` takes.

    size: of what is decoded, in pixels; a wavelet decoder encodes images of half of it.
    """
    config = image_config(vqgan.config)
    squares = [resize_square(open_image(image), size, config) for image in images]
    targets = np.stack(squares).astype(np.float32) / 255
    seen = targets
    if vqgan.config.wavelet:
        half = (size // 2, size // 2)
        smaller = [np.asarray(Image.fromarray(s).resize(half, Image.BILINEAR)) for s in squares]
        seen = np.stack(smaller).astype(np.float32) / 255
    chunks = [seen[i : i + batch_size] for i in range(0, len(seen), batch_size)]
    codes = [np.asarray(vqgan.encode(chunk)) for chunk in chunks]
    decoded = [np.asarray(vqgan.decode(chunk)) for chunk in codes]
    return Reconstruction(targets, np.concatenate(decoded), np.concatenate(codes))
