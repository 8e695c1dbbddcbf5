"""Turns the rows of a split into the arrays of examples, with random views of the images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image

from clip_jax.config import ClipConfig, ImageConfig
from clip_jax.errors import InputError
from clip_jax.image_file import open_image
from clip_jax.text import escape
from clip_jax.tokenizer import Tokenizer
from experiments.config.data import DataConfig
from experiments.data.augment import augment_rendering, render
from experiments.data.source import Split
from experiments.training.phases import with_progress

RENDERING = 0x72656E64  # sets the renderings' random numbers apart from all others
Example = dict[str, np.ndarray]


class ImageExamples:
    """Samples of one split by number: {"image": uint8[size, size, 3]}.

    Rows are read and rendered once where the set is in memory, else for each sample.
    """

    def __init__(self, split: Split, config: DataConfig, size: int, image: ImageConfig) -> None:
        """size: side of the sampled images, in pixels. image: how they are cropped and resized."""
        split.require_images()
        self.split = split
        self._augment, self._size, self._image = config.augment, size, image
        self._draft = config.draft
        self._cached: list[tuple[list[np.ndarray], Any]] | None = None
        if config.in_memory:
            variants = config.augment.variants if config.augment.renders else 1
            self._cached = [
                self._prepare(i, variants, np.random.default_rng((RENDERING, i)))
                for i in with_progress(range(len(split)), "rendering")
            ]

    def sample(self, index: int, rng: np.random.Generator) -> Example:
        if self._cached is None:
            renderings, text = self._prepare(index, 1, rng)
        else:
            renderings, text = self._cached[index]
        return {"image": self._view(renderings, rng), **self.sample_text(text, rng)}

    def read_text(self, row: dict[str, Any]) -> Any:
        """Returns what `sample_text` needs of a row."""
        return None

    def sample_text(self, text: Any, rng: np.random.Generator) -> Example:
        """Returns the arrays that an example has besides its image."""
        return {}

    def _prepare(
        self, index: int, variants: int, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], Any]:
        row = self.split[index]
        try:
            image = self._open(row["image"])
        except InputError as error:
            key = escape(str(row.get("key", "")))
            raise InputError(
                f"{self.split}: example {index} {key}: {error}; prepare the set again"
            ) from error
        renderings = [
            render(image, self._size, self._image, self._augment, rng) for _ in range(variants)
        ]
        return renderings, self.read_text(row)

    def _open(self, image: bytes) -> Image.Image:
        largest = math.ceil(self._size * max(*self._augment.scale, 1.0))
        return open_image(image, draft_side=largest if self._draft else None)

    def _view(self, renderings: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
        rendering = renderings[rng.integers(len(renderings))]
        return augment_rendering(rendering, self._size, self._augment, rng)


class ImageTextExamples(ImageExamples):
    """{"image": uint8[H, W, 3], "input_ids": int32[S]}: an image and one of its captions."""

    def __init__(
        self, split: Split, config: DataConfig, model: ClipConfig, tokenizer: Tokenizer
    ) -> None:
        split.require_captions()
        self._model, self._tokenizer = model, tokenizer
        super().__init__(split, config, model.vision.image_size, model.image)

    def read_text(self, row: dict[str, Any]) -> np.ndarray:
        length = self._model.text.context_length
        return self._tokenizer.encode_batch(
            row["captions"], length, lowercase=self._model.lowercase
        )

    def sample_text(self, text: np.ndarray, rng: np.random.Generator) -> Example:
        return {"input_ids": text[rng.integers(len(text))]}
