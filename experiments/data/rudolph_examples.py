"""RUDOLPH's examples: the texts of a row in the form of a task, and its image's codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from clip_jax.config import ImageConfig
from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from experiments.config.data import DataConfig
from experiments.config.objective import RudolphSettings
from experiments.data.examples import RENDERING, Example, ImageExamples
from experiments.data.image_codes import CodeMetadata
from experiments.data.source import Split
from experiments.data.sources.schema import CODES
from experiments.data.task_formatter import TaskFormatter, Texts
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import Layout

ENCODED_AT_ONCE = 128  # images; one shape, so that the encoder compiles once

# uint8[N, size, size, 3] -> the likeliest codes int32[N, n]
Encode = Callable[[np.ndarray], np.ndarray]


class RudolphExamples(ImageExamples):
    """{"input_ids": int32[T]} of sets prepared with codes, or in memory, encoded once at the start.

    Of others {"image": uint8[size, size, 3], "input_ids": int32[T]} with zeros in the codes' place.
    """

    def __init__(
        self,
        split: Split,
        config: DataConfig,
        model: RudolphConfig,
        settings: RudolphSettings,
        tokenizer: Tokenizer,
        size: int,
        image: ImageConfig,
        encode: Encode,
    ) -> None:
        self._formatter = TaskFormatter(split, model, settings, tokenizer)
        self._layout = Layout(model)
        # Renderings are not stored: codes are, of as many whole views.
        super().__init__(split, dataclasses.replace(config, in_memory=False), size, image)
        self._codes: np.ndarray | None = None
        self._coded = CODES in split.features and CODES in split.metadata
        if self._coded:
            self._check_codes(config, settings)
        if config.in_memory and self._coded:
            rows = [(self._formatter.read(row), row[CODES][None]) for row in split]
            self._texts = [texts for texts, _ in rows]
            self._codes = np.stack([codes for _, codes in rows])
        elif config.in_memory:
            variants = config.augment.variants if config.augment.changes else 1
            self._texts = [self._formatter.read(row) for row in split]
            self._codes = self._encode_all(encode, variants)

    def sample(self, index: int, rng: np.random.Generator) -> Example:
        if self._codes is not None:
            texts, variants = self._texts[index], self._codes[index]
        elif self._coded:
            row = self.split[index]
            texts, variants = self._formatter.read(row), row[CODES][None]
        else:
            return super().sample(index, rng)
        example = self.sample_text(texts, rng)
        example["input_ids"][self._layout.image] = variants[rng.integers(len(variants))]
        return example

    def read_text(self, row: dict[str, Any]) -> Texts:
        return self._formatter.read(row)

    def sample_text(self, text: Texts, rng: np.random.Generator) -> Example:
        return {"input_ids": self._formatter.sample(text, rng)}

    def _check_codes(self, config: DataConfig, settings: RudolphSettings) -> None:
        """Raises InputError unless the set's codes are those of the views that the config makes."""
        if config.augment.changes:
            raise InputError(
                f"{self.split}: has the codes of unchanged images, and config.data.augment "
                "changes images; turn it off, or prepare the set without --vqgan"
            )
        codes = CodeMetadata(**self.split.metadata[CODES])
        codes.check(settings.vqgan, self._layout.image_length, self.split)

    def _encode_all(self, encode: Encode, variants: int) -> np.ndarray:
        """int32[rows, variants, n]: codes of so many views of each image."""
        total = len(self.split) * variants
        codes = np.empty((total, self._layout.image_length), np.int32)
        views = self._views(variants)
        for start in tqdm(
            range(0, total, ENCODED_AT_ONCE), "encoding images", disable=None, leave=False
        ):
            count = min(ENCODED_AT_ONCE, total - start)
            batch = np.zeros((ENCODED_AT_ONCE, self._size, self._size, 3), np.uint8)
            for i in range(count):
                batch[i] = next(views)
            codes[start : start + count] = encode(batch)[:count]
        return codes.reshape(len(self.split), variants, -1)

    def _views(self, variants: int) -> Iterator[np.ndarray]:
        for i in range(len(self.split)):
            rng = np.random.default_rng((RENDERING, i))
            renderings, _ = self._prepare(i, variants, rng)
            for rendering in renderings:
                yield self._view([rendering], rng)


class TextExamples:
    """{"input_ids": int32[T]} of a set without images: zeros in the codes' place.

    Source: RUDOLPH's fine-tune on SberQuAD.
    """

    def __init__(
        self,
        split: Split,
        config: DataConfig,
        model: RudolphConfig,
        settings: RudolphSettings,
        tokenizer: Tokenizer,
    ) -> None:
        if config.augment.changes:
            raise InputError(
                f"{split}: has no images, and config.data.augment changes images; turn it off"
            )
        self.split = split
        self._formatter = TaskFormatter(split, model, settings, tokenizer)
        self._texts = [self._formatter.read(row) for row in split] if config.in_memory else None

    def sample(self, index: int, rng: np.random.Generator) -> Example:
        texts = (
            self._formatter.read(self.split[index]) if self._texts is None else self._texts[index]
        )
        return {"input_ids": self._formatter.sample(texts, rng)}
