"""Encodes images with an image tokenizer, decodes them and measures the difference."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from clip_jax.image import open_image, resize_square
from rudolph_jax.config import VqganConfig
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
    shown = squares(vqgan.config, images, size)
    targets, seen = shown.astype(np.float32) / 255, encoder_input(vqgan.config, shown)
    chunks = [seen[i : i + batch_size] for i in range(0, len(seen), batch_size)]
    codes = [np.asarray(vqgan.encode(chunk)) for chunk in chunks]
    decoded = [np.asarray(vqgan.decode(chunk)) for chunk in codes]
    return Reconstruction(targets, np.concatenate(decoded), np.concatenate(codes))


def squares(config: VqganConfig, images: Sequence[Any], size: int) -> np.ndarray:
    """Crops and resizes images to uint8[N, size, size, 3]."""
    return np.stack([resize_square(open_image(one), size, image_config(config)) for one in images])


def encoder_input(config: VqganConfig, shown: np.ndarray) -> np.ndarray:
    """Scales uint8[N, size, size, 3] to float32, 0 to 1; for a wavelet decoder of half sides."""
    if config.wavelet:
        half = (shown.shape[1] // 2, shown.shape[2] // 2)
        smaller = [np.asarray(Image.fromarray(s).resize(half, Image.BILINEAR)) for s in shown]
        shown = np.stack(smaller)
    return shown.astype(np.float32) / 255
