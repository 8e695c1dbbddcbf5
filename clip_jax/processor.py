"""Texts and pictures to what the towers take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax import image as pictures
from clip_jax.byte_bpe import ByteBpe
from clip_jax.config import ClipConfig, RuclipSmallConfig
from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Processor:
    """What `ruclip.processor.RuCLIPProcessor` does; pixels are channels-last here."""

    config: ClipConfig | RuclipSmallConfig
    tokenizer: Tokenizer | ByteBpe | None

    def __call__(
        self, text: str | Sequence[str] | None = None, images: Any | None = None
    ) -> dict[str, np.ndarray]:
        """Any of {"input_ids": int32[B, S], "pixel_values": float32[B, H, W, 3]}.

        text: one text or several. images: one picture or several, each whatever
        `image.open_image` takes. Raises InputError for other types and broken pictures.
        """
        out = {}
        if text is not None:
            out["input_ids"] = self.encode_text([text] if isinstance(text, str) else list(text))
        if images is not None:
            several = isinstance(images, list | tuple)
            out["pixel_values"] = pictures.preprocess(
                list(images) if several else [images],
                self.config.vision.image_size,
                self.config.image,
            )
        return out

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """int32[B, prompt_length]: BOS, the text cut to fit, EOS, padding."""
        if self.tokenizer is None:
            raise InputError(
                "this model folder has no tokenizer.model and no vocab.json with merges.txt, so "
                "texts cannot be encoded; pass input_ids, or convert the model with its vocabulary"
            )
        return self.tokenizer.encode_batch(
            list(texts), self.config.prompt_length, lowercase=self.config.lowercase
        )
