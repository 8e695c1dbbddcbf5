"""Texts and images to what the towers take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax import image as pictures
from clip_jax.byte_bpe import ByteBpe
from clip_jax.config import ClipConfig, RuclipSmallConfig
from clip_jax.errors import InputError
from clip_jax.text import normalize_name
from clip_jax.token_padding import check_texts
from clip_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Processor:
    """What `ruclip.processor.RuCLIPProcessor` does; pixels are channels-last here."""

    config: ClipConfig | RuclipSmallConfig
    tokenizer: Tokenizer | ByteBpe | None

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any | None = None,
        *,
        normalize: bool = False,
    ) -> dict[str, np.ndarray]:
        """Any of {"input_ids": int32[B, S], "pixel_values": float32[B, H, W, 3]}.

        text: one text or several, tokenized as they are, as the original does; normalize: in
        Unicode's form NFC, whatever form they came in. images: one image or several, each whatever
        `image_file.open_image` takes; uint8[B, H, W, C] is several. Raises InputError for other
        types and broken images.
        """
        out = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            if normalize:
                check_texts(texts)
                texts = [normalize_name(each) for each in texts]
            out["input_ids"] = self.encode_text(texts)
        if images is not None:
            several = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
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
