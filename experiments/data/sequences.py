"""RUDOLPH's examples: a picture and one of its captions in the form of a task.

    task            left text           image   right text
    text to image   LT_T2I caption      codes   padding
    image to text   LT_I2T, no text     codes   RT_I2T caption
    text to text    LT_T2T caption      codes   padding

A share of them has LT_UNK and RT_UNK instead, as the original had in its pretraining. A caption
never stands on both sides, where the right one could be copied from the left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from experiments.data.codes import Codes
from experiments.data.config import DataConfig
from experiments.data.examples import RENDERING, Example, Pictures
from experiments.data.source import Split
from experiments.data.sources.finish import CODES
from experiments.settings import RudolphSettings
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import PAD, Layout
from rudolph_jax.pretrained import PIXELS
from rudolph_jax.texts import encode_left, encode_text

REMEMBERED = 100_000  # encoded captions
ENCODED_AT_ONCE = 128  # pictures; one shape, so that the encoder compiles once

# uint8[N, size, size, 3] -> the likeliest codes int32[N, n]
Encode = Callable[[np.ndarray], np.ndarray]


class Sequences(Pictures):
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
        encode: Encode,
    ) -> None:
        split.need_captions()
        self._model, self._settings, self._tokenizer = model, settings, tokenizer
        # Small sets draw the same captions again and again.
        self._encoded: dict[tuple[str, int | None, int], np.ndarray] = {}
        self._layout = Layout(model)
        # Renderings are not kept: codes are, of as many whole views.
        super().__init__(split, dataclasses.replace(config, in_memory=False), size, PIXELS)
        self._codes: np.ndarray | None = None
        self._coded = CODES in split.features and CODES in split.metadata
        if self._coded:
            self._check_codes(config)
        if config.in_memory and self._coded:
            rows = [(row["captions"], row[CODES][None]) for row in split]
            self._captions = [captions for captions, _ in rows]
            self._codes = np.stack([codes for _, codes in rows])
        elif config.in_memory:
            variants = config.augment.variants if config.augment.changes else 1
            self._captions = [row["captions"] for row in split]
            self._codes = self._encode_all(encode, variants)

    def draw(self, index: int, rng: np.random.Generator) -> Example:
        if self._codes is not None:
            captions, variants = self._captions[index], self._codes[index]
        elif self._coded:
            row = self.split[index]
            captions, variants = row["captions"], row[CODES][None]
        else:
            return super().draw(index, rng)
        example = self.draw_text(captions, rng)
        example["input_ids"][self._layout.image] = variants[rng.integers(len(variants))]
        return example

    def read_text(self, row: dict[str, Any]) -> list[str]:
        return row["captions"]

    def draw_text(self, text: list[str], rng: np.random.Generator) -> Example:
        tasks = self._settings.tasks
        shares = np.cumsum(list(tasks.values())) / sum(tasks.values())
        task = list(tasks)[int(np.searchsorted(shares, rng.random(), side="right"))]
        caption = text[rng.integers(len(text))]
        told = rng.random() >= self._settings.unknown_token_share
        ids = np.full(self._layout.length, PAD, np.int32)
        if task == "image_to_text":
            token = "LT_I2T" if told else "LT_UNK"
            ids[self._layout.left] = encode_left(self._tokenizer, self._model, "", token)
            token = "RT_I2T" if told else "RT_UNK"
            ids[self._layout.right] = self._encode(caption, token, self._layout.right)
        else:
            token = "LT_T2I" if task == "text_to_image" else "LT_T2T"
            ids[self._layout.left] = self._encode(
                caption, token if told else "LT_UNK", self._layout.left
            )
        return {"input_ids": ids}

    def _check_codes(self, config: DataConfig) -> None:
        """InputError unless the set's codes are those of the views that are asked for."""
        if config.augment.changes:
            raise InputError(
                f"{self.split}: has the codes of unchanged pictures, and config.data.augment "
                "changes pictures; turn it off, or prepare the set without --vqgan"
            )
        codes = Codes(**self.split.metadata[CODES])
        codes.check(self._settings.vqgan, self._layout.image_length, self.split)

    def _encode(self, caption: str, token: str, place: slice) -> np.ndarray:
        """A caption that is too long is cut without a word: training sets hold many."""
        special = self._layout.special_id(token) if self._model.text_special_tokens else None
        key = caption, special, place.start
        if key not in self._encoded:
            if len(self._encoded) >= REMEMBERED:
                self._encoded.clear()
            length = place.stop - place.start
            self._encoded[key] = encode_text(self._tokenizer, caption, length, special)[0]
        return self._encoded[key]

    def _encode_all(self, encode: Encode, variants: int) -> np.ndarray:
        """int32[rows, variants, n]: codes of so many views of each picture."""
        total = len(self.split) * variants
        codes = np.empty((total, self._layout.image_length), np.int32)
        views = self._views(variants)
        for start in tqdm(
            range(0, total, ENCODED_AT_ONCE), "encoding pictures", disable=None, leave=False
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
