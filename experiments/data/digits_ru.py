"""Handwritten digits with Russian captions.

The images are scikit-learn's copy of the UCI set "Optical Recognition of Handwritten Digits"
(Alpaydin and Kaynak 1998, CC-BY 4.0): 1,797 of 8x8 pixels, grey values 0 to 16.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
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


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8[1797, 8, 8, 3] and labels int[1797] from scikit-learn's wheel."""
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


def split_of(image: np.ndarray) -> str:
    """Returns the split by the pixels alone: equal images share one, whatever their order."""
    bucket = int.from_bytes(hashlib.sha256(image[..., 0].tobytes()).digest()[:4], "big") % 10
    return {0: "test", 1: "validation"}.get(bucket, "train")


def encode_png(image: np.ndarray) -> io.BytesIO:
    """Encodes uint8[H, W, 3] as a PNG file: TFDS would need TensorFlow to encode an array."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    buffer.seek(0)
    return buffer
