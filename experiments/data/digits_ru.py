"""Handwritten digits with Russian captions, as a TFDS builder.

The pictures are scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak 1998, CC-BY 4.0): 1,797 of 8x8 pixels, grey values 0 to 16.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from clip_jax.errors import InputError

NAMES = ("ноль", "один", "два", "три", "четыре", "пять", "шесть", "семь", "восемь", "девять")
TEMPLATES = (
    "рукописная цифра {}",
    "цифра {}",
    "число {}",
    "{}",
    "на картинке цифра {}",
    "кто-то написал {}",
)


class DigitsRu(tfds.core.GeneratorBasedBuilder):
    """Splits train, validation and test: 80, 10 and 10 of a hundred by a hash of the pixels.

    Features: "image" uint8[8, 8, 3] (grey stretched to 0..255), "captions" (one for each
    template), "label" (0 to 9, Russian names), "id" (the place in scikit-learn's order).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            license="CC-BY 4.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
                    "captions": tfds.features.Sequence(tfds.features.Text()),
                    "label": tfds.features.ClassLabel(names=list(NAMES)),
                    "id": np.int64,
                }
            ),
        )

    def _split_generators(self, _: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        pixels, labels = digits()
        for i, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            if split_of(picture) == split:
                yield i, {
                    "image": encode_png(picture),
                    "captions": [template.format(NAMES[label]) for template in TEMPLATES],
                    "label": int(label),
                    "id": i,
                }


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pictures uint8[1797, 8, 8, 3] and labels int[1797] from scikit-learn's wheel."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise InputError(
            "the digits come with the package 'scikit-learn', which is not installed:"
            " pip install 'rudolph-jax[demo]'"
        ) from error
    data = load_digits()
    grey = np.rint(data.images * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1), data.target


def split_of(picture: np.ndarray) -> str:
    """By the pixels alone, so that equal pictures share a split whatever their order."""
    bucket = int.from_bytes(hashlib.sha256(picture[..., 0].tobytes()).digest()[:4], "big") % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")


def encode_png(picture: np.ndarray) -> io.BytesIO:
    """uint8[H, W, 3] as a PNG file. TFDS would need TensorFlow to encode an array itself."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    buffer.seek(0)
    return buffer
