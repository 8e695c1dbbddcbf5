"""Preprocessing of texts and images to the towers' inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax import image
from clip_jax.arguments import check_flag, check_text_list
from clip_jax.byte_bpe import ByteBpe
from clip_jax.config import ClipConfig, RuclipSmallConfig
from clip_jax.errors import InputError
from clip_jax.model_repr import describe_tokenizer
from clip_jax.text import normalize_name
from clip_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Processor:
    """Does what `ruclip.processor.RuCLIPProcessor` does, with channels-last pixels."""

    config: ClipConfig | RuclipSmallConfig
    tokenizer: Tokenizer | ByteBpe | None

    def __repr__(self) -> str:
        size = self.config.vision.image_size
        return (
            f"Processor(images to {size}x{size} pixels, texts to {self.config.prompt_length} "
            f"tokens, {describe_tokenizer(self.tokenizer)})"
        )

    def __call__(
        self,
        text: str | Sequence[str] | None = None,
        images: Any | None = None,
        *,
        normalize: bool = False,
    ) -> dict[str, np.ndarray]:
        """Returns any of {"input_ids": int32[B, S], "pixel_values": float32[B, H, W, 3]}.

        text: one text or several, tokenized as they are, as the original does.
        images: one image or several, each as `image_file.open_image` takes it; uint8[B, H, W, C]
            is several.
        normalize: convert texts to NFC first.

        Other types and damaged images raise InputError.
        """
        check_flag("normalize", normalize)
        out = {}
        if text is not None:
            texts = check_text_list("text", [text] if isinstance(text, str) else text)
            if normalize:
                texts = [normalize_name(each) for each in texts]
            out["input_ids"] = self.encode_text(texts)
        if images is not None:
            several = isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4
            out["pixel_values"] = image.preprocess(
                list(images) if several else [images],
                self.config.vision.image_size,
                self.config.image,
            )
        return out

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        """Tokenizes texts to int32[B, prompt_length]: BOS, the truncated text, EOS, padding."""
        texts = check_text_list("texts", texts)
        if self.tokenizer is None:
            raise InputError(
                "this model folder has no tokenizer.model and no vocab.json with merges.txt, so "
                "texts cannot be encoded; pass input_ids, or convert the model with its vocabulary"
            )
        return self.tokenizer.encode_batch(
            texts, self.config.prompt_length, lowercase=self.config.lowercase
        )
