"""Measures images a second as the ruCLIP report's table does, on CIFAR100's images and classes."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from clip_jax import PretrainedClip
from clip_jax.config import ClipConfig
from clip_jax.errors import InputError
from clip_jax.image import preprocess

CLASSES, SIDE = 100, 32
# iter/sec on an NVIDIA V100, of ruCLIP's README: 8 images at once, preprocessing included, as its
# Predictor works; the README says neither.
PUBLISHED_V100 = {
    "ruclip-vit-base-patch32-224": 308.84,
    "ruclip-vit-base-patch16-224": 155.35,
    "ruclip-vit-large-patch14-224": 49.95,
    "ruclip-vit-base-patch32-384": 147.26,
    "ruclip-vit-large-patch14-336": 22.11,
    "ruclip-vit-base-patch16-384": 61.79,
}
# Of embeddings, as a share of their largest magnitude, by which two implementations may differ.
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2, "float16": 1e-2}


class Encoder(Protocol):
    """name: for tables. device: in words."""

    name: str
    device: str

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """float32[B, H, W, 3], normalised -> float32[B, E], finished and on the host."""


@dataclasses.dataclass(frozen=True)
class JaxEncoder:
    """This project's, on JAX's default device."""

    clip: PretrainedClip
    name: str = "rudolph-jax"

    @property
    def device(self) -> str:
        device = jax.devices()[0]
        cores = f", {os.cpu_count()} cores" if device.platform == "cpu" else ""
        return device.device_kind + cores

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self.clip.encode_image(pixels))


@dataclasses.dataclass(frozen=True)
class Timing:
    """rounds: images a second of each round, by the encoder's name."""

    batch_size: int
    preprocessing: bool
    rounds: Mapping[str, Sequence[float]]

    def medians(self) -> dict[str, float]:
        return {name: float(np.median(rates)) for name, rates in self.rounds.items()}


def generated_images(count: int, seed: int = 0) -> list[Image.Image]:
    """Generate images of CIFAR100's size; their content does not change the encoders' time."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in pixels]


def time_encoders(
    encoders: Sequence[Encoder],
    config: ClipConfig,
    *,
    batch_size: int,
    count: int,
    rounds: int,
    preprocessing: bool,
) -> Timing:
    """Time each encoder in each round on the same images; the first batch is not counted.

    With preprocessing images are cropped, resized and normalised in the time that is taken, on
    one thread, and all encoders get them from the same code. Each batch ends with its labels.
    """
    for name, value in (("batch size", batch_size), ("images", count), ("rounds", rounds)):
        if value < 1:
            raise InputError(f"{name} is {value}; expected at least 1")
    batches = -(-count // batch_size)
    images = generated_images(batches * batch_size)
    parts = [images[i : i + batch_size] for i in range(0, len(images), batch_size)]
    size, classes = config.vision.image_size, _classes(config.embed_dim)

    def pixels_of(part: list[Image.Image]) -> np.ndarray:
        return preprocess(part, size, config.image)

    # Without preprocessing all batches are the first, which spares memory and costs the same.
    ready = pixels_of(parts[0])
    rates: dict[str, list[float]] = {encoder.name: [] for encoder in encoders}
    for encoder in encoders:
        encoder.encode(ready)
    total = rounds * len(encoders) * len(images)
    with tqdm(total=total, unit=" images", disable=None, leave=False) as bar:
        for turn in range(rounds):
            # Whoever begins has the machine in another state: each begins as often.
            for encoder in (*encoders[turn % len(encoders) :], *encoders[: turn % len(encoders)]):
                start = time.perf_counter()
                for part in parts:
                    found = encoder.encode(pixels_of(part) if preprocessing else ready)
                    (found @ classes.T).argmax(axis=1)
                rates[encoder.name].append(len(images) / (time.perf_counter() - start))
                bar.update(len(images))
    return Timing(batch_size, preprocessing, rates)


def largest_difference(one: Encoder, other: Encoder, config: ClipConfig, count: int = 8) -> float:
    """Return how far two encoders' embeddings differ, relative to their largest magnitude."""
    pixels = preprocess(generated_images(count), config.vision.image_size, config.image)
    first, second = one.encode(pixels), other.encode(pixels)
    return float(np.abs(first - second).max() / np.abs(first).max())


def _classes(embed_dim: int) -> np.ndarray:
    """float32[100, E]: unit rows; which ones costs no time."""
    rows = np.random.default_rng(1).normal(size=(CLASSES, embed_dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
