"""Defines what an evaluation compares: a model, its prompts' language, how templates are averaged.

    model = open_clip("models/ruclip-vit-base-patch16-384")
    model = open_clip("models/clip-vit-base-patch16", translations="translations.json")

The nine of ruCLIP's report are six ruCLIP, ruCLIP Small, OpenAI's CLIP and that CLIP with Russian
prompts that a translator made English.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

import clip_jax
from clip_jax import PRESETS, RUCLIP_SMALL, Predictor, PretrainedClip, model_folder
from clip_jax.byte_bpe import CLIP, ByteBpe
from clip_jax.errors import InputError
from clip_jax.image import PREPROCESSING_VERSION
from clip_jax.paths import as_path
from clip_jax.predictor import check_average, mean_latents
from clip_jax.ruclip_small import PROMPT
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.image_features import (
    FEATURES,
    FeatureExtractor,
    ImageFeatures,
    ImageSet,
)
from experiments.evaluation.multihost import on_all_hosts
from experiments.evaluation.prompts.translations import Translations, read_translations
from experiments.evaluation.unreadable import find_unreadable

FROM_OPENAI = ("openai-clip", "hf-clip")  # kinds of checkpoint whose texts are English
PUBLISHED = {**PRESETS, "ruclip-small": RUCLIP_SMALL}
# Raised when the same model and pixels are to give other features. 2: unreadable images have none.
FORMAT = 2


@dataclasses.dataclass(frozen=True)
class ClipModel:
    """A model with all that an evaluation has to know about it, and its features.

    name: for tables.
    language: of the prompts that it takes, "ru" or "en".
    average: how a class's prompts become one embedding, see `clip_jax.predictor.mean_latents`.
    translations: of Russian prompts, for a model that reads English.
    batch_size: texts at once, and images at once on each device.
    quiet: no progress bar of texts.
    devices: of this host, to split the images of a set over; the hosts then share the set, and
        each must make the same calls. None: wherever the model is, this host alone.
    cache: of the features of sets and classes; None: nothing is cached.
    """

    name: str
    clip: PretrainedClip
    language: str
    average: str
    converted_from: str | None = None
    translations: Translations | None = None
    batch_size: int = 64
    quiet: bool = False
    devices: Sequence[jax.Device] | None = None
    cache: ArrayCache | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch size is {self.batch_size}; expected at least 1")

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
    def prompt_prefix(self) -> str:
        """Return how all of its prompts begin; "" if that is open. ruCLIP Small has a fixed one."""
        return PROMPT.partition("{}")[0] if self.clip.kind == "ruclip-small" else ""

    @property
    def content_hash(self) -> str:
        """SHA-256 of what the model is: `PretrainedClip.content_hash`."""
        return self.clip.content_hash

    def metadata(self) -> dict[str, Any]:
        """Describes the model in a result, for JSON, so that the result can be traced."""
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

    def text_latents(self, prompts: Sequence[str]) -> np.ndarray:
        """float32[prompts, E], unit rows."""
        return mean_latents(self._encode_texts(prompts)[None], self.average)

    def class_latents(self, prompts: Sequence[Sequence[str]]) -> np.ndarray:
        """float32[classes, E], unit rows. prompts: of each class, templates filled in."""
        if not prompts or not all(prompts):
            raise InputError("prompts are empty; expected at least one class, each with a prompt")
        # The average and the translator change what prompts become.
        key = self._cache_key() | {
            "average": self.average,
            "translations": self.metadata()["translations"],
            "prompts": [list(texts) for texts in prompts],
        }
        cached = self._cached(key)
        if cached is None:
            encoded = self._encode_texts([text for texts in prompts for text in texts])
            parts = np.split(encoded, np.cumsum([len(texts) for texts in prompts])[:-1])
            cached = np.stack([mean_latents(part, self.average) for part in parts])
            self._store(key, cached)
        return cached

    def image_latents(self, images: Sequence[Any]) -> np.ndarray:
        """float32[images, E], unit rows. images: whatever `clip_jax.image.open_image` takes."""
        return self._predictor.get_image_latents(images)

    def image_features(self, images: Sequence[Any]) -> np.ndarray:
        """float32[images, D]: what the image tower has before its projection."""
        return self._predictor.get_image_features(images)

    def set_features(self, images: ImageSet, kind: str = "post") -> ImageFeatures:
        """Features of all images of a set.

        kind: "post" gives unit rows of the shared space, float32[N, E]; "pre" what the tower has
        before its projection, float32[N, D]. A set without a readable image raises InputError.
        """
        if kind not in FEATURES:
            raise InputError(f"features are {kind!r}; expected one of {', '.join(FEATURES)}")
        key = self._cache_key() | {
            "features": kind,
            "set": images.name,
            "split": images.split,
            "source": images.source_hash,
        }
        found = self._cached_features(key, images)
        if found is None:
            found = self._extractor.extract(images, kind)
            self._store(key, found.values)
        return found

    def _encode_texts(self, prompts: Sequence[str]) -> np.ndarray:
        texts = list(prompts)
        return self._predictor.encode_texts(
            self.translations.translate(texts) if self.translations else texts
        )

    @cached_property
    def _predictor(self) -> Predictor:
        return Predictor(self.clip, batch_size=self.batch_size, quiet=self.quiet)

    @cached_property
    def _extractor(self) -> FeatureExtractor:
        return FeatureExtractor(self.clip, self.batch_size, self.devices)

    def _cache_key(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "preprocessing": PREPROCESSING_VERSION,
            "model": self.content_hash,
            "dtype": self.clip.compute.dtype,
        }

    def _cached_features(self, key: dict[str, Any], images: ImageSet) -> ImageFeatures | None:
        """Return cached features, unless an image that was unreadable then can be read now."""
        cached = self._cached(key)
        if cached is None:
            return None
        places = np.flatnonzero(np.isnan(cached).all(axis=1)).tolist()
        reasons = find_unreadable(images, places, self._extractor.square)
        unchanged = self._everywhere(len(reasons) == len(places))
        return ImageFeatures(cached, reasons) if unchanged else None

    def _cached(self, key: dict[str, Any]) -> np.ndarray | None:
        """Return a cached result if every host finds it: all of them compute or none does."""
        cached = self.cache.get(key) if self.cache else None
        return cached if self._everywhere(cached is not None) else None

    def _store(self, key: dict[str, Any], array: np.ndarray) -> None:
        if self.cache and jax.process_index() == 0:
            self.cache.put(key, array)

    def _everywhere(self, flag: bool) -> bool:
        return on_all_hosts(flag) if self.devices else flag


def _same(preset: Any, config: Any) -> bool:
    a, b = preset.to_dict(), config.to_dict()
    return {**a, **{name: b[name] for name in ("bos_id", "eos_id", "pad_id")}} == b


def open_clip(
    folder: str | Path,
    *,
    translations: str | Path | None = None,
    average: str | None = None,
    language: str | None = None,
    compute: clip_jax.Compute = clip_jax.Compute(),
    **fields: Any,
) -> ClipModel:
    """Loads a model folder with what its authors did, or what is given here.

    translations: a file of `python -m experiments.translate`, for a model that reads English;
        prompts are then Russian.
    average, language: by default as the model's authors did, "ruclip" and "ru" for ruCLIP, "clip"
        and "en" for OpenAI's CLIP.
    fields: more of `ClipModel`; name: "" or None is the folder's.

    Wrong input raises InputError.
    """
    folder = as_path(folder)
    clip = clip_jax.load(folder, compute)
    converted_from = model_folder.read_config(folder)["provenance"].get("converted_from")
    tokenizer = clip.processor.tokenizer
    english = converted_from in FROM_OPENAI or (
        isinstance(tokenizer, ByteBpe) and tokenizer.spec is CLIP
    )
    reads = language or ("en" if english else "ru")
    if reads not in ("ru", "en"):
        raise InputError(f"language is {language!r}; expected 'ru' or 'en'")
    average = average or ("clip" if english else "ruclip")
    check_average(average)
    name, table = fields.pop("name", None) or folder.name, None
    if translations is not None:
        if reads != "en":
            raise InputError(
                f"{folder}: reads Russian, so that its prompts need no translations; leave them out"
            )
        table, reads = read_translations(translations), "ru"
        name = f"{table.translator.get('name', 'translator')} + {name}"
    return ClipModel(name, clip, reads, average, converted_from, table, **fields)
