"""What an evaluation compares: a model, the language of its prompts, how templates are averaged.

    system = open_system("models/ruclip-vit-base-patch16-384")
    system = open_system("models/clip-vit-base-patch16", translations="translations.json")

The nine systems of ruCLIP's report are six ruCLIP, ruCLIP Small, OpenAI's CLIP and that CLIP with
Russian prompts that a translator made English.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

import clip_jax
from clip_jax import PRESETS, RUCLIP_SMALL, Predictor, PretrainedClip, model_folder
from clip_jax.byte_bpe import CLIP, ByteBpe
from clip_jax.errors import InputError
from clip_jax.predictor import check_average, mean_latents
from clip_jax.ruclip_small import PROMPT
from experiments.evaluation.prompts.translations import Translations, read_translations

FROM_OPENAI = ("openai-clip", "hf-clip")  # kinds of checkpoint whose texts are English
PUBLISHED = {**PRESETS, "ruclip-small": RUCLIP_SMALL}


@dataclasses.dataclass(frozen=True)
class System:
    """A model with all that an evaluation has to know about it.

    name: for tables. language: of the prompts that it takes, "ru" or "en". average: how a class's
    prompts become one embedding, see `clip_jax.predictor.mean_latents`. translations: of Russian
    prompts, for a model that reads English.
    """

    name: str
    clip: PretrainedClip
    language: str
    average: str
    converted_from: str | None = None
    translations: Translations | None = None
    batch_size: int = 64
    quiet: bool = False

    @property
    def embed_dim(self) -> int:
        return self.clip.config.embed_dim

    @property
    def preset(self) -> str | None:
        """The published model of these sizes and this preprocessing, a name of PUBLISHED.

        Ids are left out, for transformers' copies of CLIP name others that nothing reads.
        """
        return next((name for name, p in PUBLISHED.items() if _same(p, self.clip.config)), None)

    @property
    def prompt_opening(self) -> str:
        """How all of its prompts begin, "" if that is open: ruCLIP Small's as its authors asked."""
        return PROMPT.partition("{}")[0] if self.clip.kind == "ruclip-small" else ""

    def text_latents(self, prompts: Sequence[str]) -> np.ndarray:
        """float32[prompts, E], unit rows."""
        return mean_latents(self._encode(prompts)[None], self.average)

    def class_latents(self, prompts: Sequence[Sequence[str]]) -> np.ndarray:
        """float32[classes, E], unit rows. prompts: of each class, templates filled in."""
        if not prompts or not all(prompts):
            raise InputError("prompts are empty; expected at least one class, each with a prompt")
        encoded = self._encode([text for texts in prompts for text in texts])
        parts = np.split(encoded, np.cumsum([len(texts) for texts in prompts])[:-1])
        return np.stack([mean_latents(part, self.average) for part in parts])

    def image_latents(self, images: Sequence[Any]) -> np.ndarray:
        """float32[images, E], unit rows. images: whatever `clip_jax.image.open_image` takes."""
        return self._predictor.get_image_latents(images)

    def image_features(self, images: Sequence[Any]) -> np.ndarray:
        """float32[images, D]: what the image tower has before its projection."""
        return self._predictor.get_image_features(images)

    @property
    def content_hash(self) -> str:
        """SHA-256 of what the model is: `PretrainedClip.content_hash`."""
        return self.clip.content_hash

    def about(self) -> dict[str, Any]:
        """What a result has to tell so that it can be traced, for JSON."""
        translations = self.translations
        return {
            "system": self.name,
            "preset": self.preset,
            "converted_from": self.converted_from,
            "sha256": self.content_hash,
            "language": self.language,
            "average": self.average,
            "dtype": self.clip.compute.dtype,
            "translations": translations
            and {"sha256": translations.sha256, "translator": dict(translations.translator)},
        }

    def _encode(self, prompts: Sequence[str]) -> np.ndarray:
        texts = list(prompts)
        return self._predictor.encode_texts(
            self.translations.translate(texts) if self.translations else texts
        )

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.clip, batch_size=self.batch_size, quiet=self.quiet)


def _same(preset: Any, config: Any) -> bool:
    a, b = preset.to_dict(), config.to_dict()
    return {**a, **{name: b[name] for name in ("bos_id", "eos_id", "pad_id")}} == b


def open_system(
    folder: str | Path,
    *,
    translations: str | Path | None = None,
    average: str | None = None,
    language: str | None = None,
    batch_size: int = 64,
    compute: clip_jax.Compute = clip_jax.Compute(),
) -> System:
    """The system that a model folder is.

    translations: a file of `python -m experiments.translate`, for a model that reads English;
    prompts are then Russian. average, language: by default as the model's authors did, "ruclip" and
    "ru" for ruCLIP, "clip" and "en" for OpenAI's CLIP. Wrong input raises InputError.
    """
    folder = Path(folder)
    clip = clip_jax.load(folder, compute)
    converted_from = model_folder.read_config(folder)["provenance"].get("converted_from")
    tokenizer = clip.processor.tokenizer
    english = converted_from in FROM_OPENAI or (
        isinstance(tokenizer, ByteBpe) and tokenizer.family is CLIP
    )
    reads = language or ("en" if english else "ru")
    if reads not in ("ru", "en"):
        raise InputError(f"language is {language!r}; expected 'ru' or 'en'")
    average = average or ("clip" if english else "ruclip")
    check_average(average)
    if translations is None:
        return System(folder.name, clip, reads, average, converted_from, batch_size=batch_size)
    if reads != "en":
        raise InputError(
            f"{folder}: reads Russian, so that its prompts need no translations; leave them out"
        )
    kept = read_translations(translations)
    name = f"{kept.translator.get('name', 'translator')} + {folder.name}"
    return System(name, clip, "ru", average, converted_from, kept, batch_size)
