"""Zero-shot classification: templates -> class embeddings -> labels.

Source: `ruclip.predictor.Predictor`, whose names and defaults are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from clip_jax.arguments import (
    check_array,
    check_flag,
    check_floating,
    check_image_list,
    check_integer,
    check_text_list,
    check_type,
    describe,
)
from clip_jax.batch_padding import pad_batch
from clip_jax.config_fields import short_repr
from clip_jax.errors import InputError
from clip_jax.pretrained import PretrainedClip
from clip_jax.progress import progress_bar
from clip_jax.text import normalize_name, warn_of_invisible

# ruCLIP's own, in its order.
TEMPLATES = (
    "{}",
    "фото, на котором изображено {}",
    "изображение с {}",
    "картинка с {}",
    "фото с {}",
    "на фото видно {}",
)


class Predictor:
    """Computes class embeddings, image embeddings and labels with one model.

    templates: each with one {}; None: ruCLIP's six.
    average: how the templates' embeddings are averaged, see `mean_latents`.
    batch_size: images, or texts, per batch.
    quiet: no progress bar (without a terminal there is none anyway).
    """

    def __init__(
        self,
        clip: PretrainedClip,
        templates: Sequence[str] | None = None,
        *,
        average: str = "ruclip",
        batch_size: int = 8,
        quiet: bool = False,
    ) -> None:
        check_type("clip", clip, PretrainedClip, "clip_jax.load(folder)")
        self.clip = clip
        self.templates = (
            list(TEMPLATES) if templates is None else check_text_list("templates", templates)
        )
        self.average = average
        self.batch_size = check_integer("batch_size", batch_size)
        check_flag("quiet", quiet)
        self.quiet = quiet
        check_average(average)
        if not self.templates:
            raise InputError("templates are empty; expected at least one, such as '{}'")
        for template in self.templates:
            if template.count("{}") != 1:
                raise InputError(f"template {template!r} needs exactly one {{}} for the class name")

    def __repr__(self) -> str:
        return (
            f"Predictor({len(self.templates)} templates, average={self.average!r}, "
            f"batch_size={self.batch_size}, {self.clip!r})"
        ).replace(",\n    ", ", ")

    def get_text_latents(self, class_labels: Sequence[str]) -> np.ndarray:
        """Returns float32[classes, E], unit rows, for class names lower-cased, stripped, in NFC.

        Names with invisible characters give an InvisibleCharacterWarning.
        """
        labels = check_text_list("class_labels", class_labels, "names", least=1)
        names = [normalize_name(label.lower().strip()) for label in labels]
        warn_of_invisible(names, "class_labels")
        prompts = [t.replace("{}", name) for t in self.templates for name in names]
        latents = self.encode_texts(prompts).reshape(len(self.templates), len(names), -1)
        return mean_latents(latents, self.average)

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes texts to float32[texts, E], not normalised."""
        texts = check_text_list("texts", texts)
        if not texts:
            return np.zeros((0, self.clip.config.embed_dim), np.float32)
        ids = self.clip.processor(text=texts)["input_ids"]
        return self._in_batches(lambda ids: ids, self.clip.encode_text, ids, "texts")

    def get_image_latents(self, images: Sequence[Any]) -> np.ndarray:
        """Encodes images to float32[images, E], unit rows."""
        images = check_image_list("images", images)
        found = self._in_batches(self._pixels, self.clip.encode_image, images, "images")
        return _l2_normalize(found)

    def get_image_features(self, images: Sequence[Any]) -> np.ndarray:
        """Encodes images to float32[images, D]: the vision tower's features before projection."""
        images = check_image_list("images", images)
        if not len(images):
            return np.zeros((0, self.clip.config.vision.width), np.float32)
        return self._in_batches(self._pixels, self.clip.encode_image_features, images, "images")

    def run(self, images: Sequence[Any], text_latents: np.ndarray) -> list[int]:
        """Returns each image's class: the index of the most similar row of text_latents.

        text_latents: float32[classes, E] of `get_text_latents`.
        """
        images = check_image_list("images", images)
        latents = self._check_latents(text_latents)
        return (self.get_image_latents(images) @ latents.T).argmax(axis=1).tolist()

    def _check_latents(self, text_latents: Any) -> np.ndarray:
        wanted = (
            f"float32[classes, {self.clip.config.embed_dim}], the embeddings of "
            "get_text_latents(class_labels)"
        )
        if isinstance(text_latents, str):
            raise InputError(f"text_latents are {describe(text_latents)}; expected {wanted}")
        latents = np.asarray(check_array("text_latents", text_latents))
        check_floating("text_latents", latents, wanted)
        if latents.ndim != 2 or latents.shape[1] != self.clip.config.embed_dim:
            raise InputError(
                f"text_latents are {latents.dtype}{list(latents.shape)}; expected {wanted}"
            )
        if not len(latents):
            raise InputError("text_latents are empty; expected a row for each class, at least one")
        if not np.isfinite(latents).all():
            raise InputError(f"text_latents hold values that are not finite; expected {wanted}")
        return latents

    def _pixels(self, images: Sequence[Any]) -> np.ndarray:
        return self.clip.processor(images=list(images))["pixel_values"]

    def _in_batches(
        self,
        prepare: Callable[[Any], np.ndarray],
        encode: Callable[..., jax.Array],
        items: Any,
        unit: str,
    ) -> np.ndarray:
        if not len(items):
            return np.zeros((0, self.clip.config.embed_dim), np.float32)
        with progress_bar(len(items), unit, quiet=self.quiet) as bar:
            parts = []
            for start in range(0, len(items), self.batch_size):
                rows = prepare(items[start : start + self.batch_size])
                # A last batch that is not the only one reuses the program of the others.
                full = pad_batch(rows, self.batch_size if start else 0)
                parts.append(np.asarray(encode(full, unpad=False))[: len(rows)])
                bar.update(len(rows))
        return np.concatenate(parts)


def mean_latents(latents: np.ndarray, average: str) -> np.ndarray:
    """Averages float32[templates, ..., E] to float32[..., E], unit rows.

    average: "ruclip" averages the embeddings as they are, "clip" normalises each to unit length
        first (Radford et al. 2021, section 3.1.4). The mean is normalised in both.
    """
    check_average(average)
    if average == "clip":
        latents = _l2_normalize(latents)
    return _l2_normalize(latents.mean(0, dtype=np.float32))


def check_average(average: str) -> None:
    """Raises InputError for an unknown `average` of `mean_latents`."""
    if not isinstance(average, str) or average not in ("ruclip", "clip"):
        raise InputError(f"average is {short_repr(average)}; expected 'ruclip' or 'clip'")


def _l2_normalize(rows: np.ndarray) -> np.ndarray:
    """Normalises rows on the host, where a new number of rows needs no compilation."""
    with np.errstate(invalid="ignore"):
        return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
