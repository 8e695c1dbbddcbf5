"""Embeddings of images and texts by ruCLIP while it trains, over all devices."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import jax
import numpy as np

from clip_jax.config import ClipConfig, Compute
from clip_jax.image import normalize_pixels, open_image, resize_square
from clip_jax.model import Clip
from clip_jax.predictor import mean_latents
from clip_jax.processor import Processor
from clip_jax.text import normalize_name, warn_of_invisible
from experiments.evaluation.during_training.sharded_model import ShardedModel
from experiments.evaluation.image_features import ImageFeatures, ImageSet
from experiments.evaluation.multihost import gather_notes
from experiments.evaluation.unreadable import check_any_readable, why_unreadable


@dataclasses.dataclass(frozen=True)
class _Encode:
    """A tower as a function of rows; arrays other than its input "x" come back as they are."""

    config: ClipConfig
    compute: Compute
    method: str

    def __call__(self, params: Any, rows: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        clip = Clip(self.config, self.compute)
        return {**rows, "x": clip.apply({"params": params}, rows["x"], method=self.method)}


class ShardedClip:
    """Encodes rows that all processes share; each of them makes the same calls."""

    def __init__(self, model: ShardedModel) -> None:
        self._model = model
        self._processor = Processor(model.config, model.tokenizer)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(os.cpu_count())

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes texts to float32[texts, E], not of unit length."""

        def read(places: Sequence[int]) -> dict[str, np.ndarray]:
            return {"x": self._processor.encode_text([texts[place] for place in places])}

        return self._encode("encode_text", len(texts), read)["x"]

    def text_latents(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes texts to float32[texts, E], unit rows; they are stripped, lower-cased, in NFC."""
        names = [normalize_name(text.lower().strip()) for text in texts]
        warn_of_invisible(names, "class_labels")
        return mean_latents(self.encode_texts(names)[None], "ruclip")

    def class_latents(self, prompts: Sequence[Sequence[str]]) -> np.ndarray:
        """Averages each class's prompts to float32[classes, E], unit rows."""
        encoded = self.encode_texts([text for texts in prompts for text in texts])
        parts = np.split(encoded, np.cumsum([len(texts) for texts in prompts])[:-1])
        return np.stack([mean_latents(part, "ruclip") for part in parts])

    def image_latents(
        self, count: int, image: Callable[[int], tuple[Any, int]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encodes images to float32[count, E], unit rows; int32[count]: the numbers beside them.

        image: place -> what `open_image` takes, and a number such as its label.
        """

        def read_one(place: int) -> tuple[np.ndarray, int]:
            found, number = image(place)
            return self.square(found), number

        def read(places: Sequence[int]) -> dict[str, np.ndarray]:
            squares, numbers = zip(*self._pool.map(read_one, places), strict=True)
            return {"x": self._pixels(squares), "number": np.array(numbers, np.int32)}

        found = self._encode("encode_image", count, read)
        return _unit(found["x"]), found["number"]

    def set_features(self, images: ImageSet) -> ImageFeatures:
        """Encodes the images of an evaluation set; without a readable one InputError."""
        reasons: dict[int, str] = {}
        size = self._model.config.vision.image_size

        def read_one(place: int) -> np.ndarray:
            found: list[np.ndarray] = []
            why = why_unreadable(images, place, lambda data: found.append(self.square(data)))
            if why:
                reasons[place] = why
            return found[0] if found else np.zeros((size, size, 3), np.uint8)

        def read(places: Sequence[int]) -> dict[str, np.ndarray]:
            return {"x": self._pixels(list(self._pool.map(read_one, places)))}

        values = _unit(self._encode("encode_image", len(images), read)["x"])
        unreadable = dict(sorted(gather_notes(reasons).items()))
        check_any_readable(images, len(images), unreadable)
        values[list(unreadable)] = np.nan
        return ImageFeatures(values, unreadable)

    def square(self, image: Any) -> np.ndarray:
        """uint8[size, size, 3] of whatever `open_image` takes."""
        config = self._model.config
        return resize_square(open_image(image), config.vision.image_size, config.image)

    def _pixels(self, squares: Sequence[np.ndarray]) -> np.ndarray:
        return normalize_pixels(np.stack(squares), self._model.config.image)

    def _encode(
        self, method: str, count: int, read: Callable[[Sequence[int]], dict[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        model = self._model
        encode = _Encode(model.config, model.compute, method)
        return model.map_rows(encode, model.params, count, read)


def _unit(rows: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
