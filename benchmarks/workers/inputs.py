"""Inputs of every worker: the same numbers from numpy in any environment."""

import numpy as np

PAD, EOS, FIRST_TEXT_ID = 0, 3, 4  # ruCLIP's ids: two special ones, the first of a text piece
# ruCLIP's pixel statistics, RGB.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# AdamW without weight decay, since each project decays other parameters.
RATE, BETAS, EPSILON, CLIP_NORM = 1e-5, (0.9, 0.95), 1e-8, 1.0


def pixels(batch: int, size: int) -> np.ndarray:
    """Return unit normal float32[batch, size, size, 3]."""
    values = np.random.RandomState(0).standard_normal((batch, size, size, 3))
    return values.astype(np.float32)


def texts(batch: int, length: int, vocab_size: int) -> np.ndarray:
    """Return int64[batch, length]: texts of random lengths, padded as ruCLIP's processor pads."""
    rng = np.random.RandomState(0)
    ids = rng.randint(FIRST_TEXT_ID, vocab_size, (batch, length))
    ends = rng.randint(length // 2, length, (batch, 1))
    positions = np.arange(length)
    return np.where(positions < ends, ids, np.where(positions == ends, EOS, PAD))


def embeddings(batch: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return unit rows float32[batch, width] of images and of texts, as in an untrained model."""
    rows = np.random.RandomState(0).standard_normal((2, batch, width))
    image, text = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return image, text


def uint8_images(batch: int, size: int) -> np.ndarray:
    """Return uint8[batch, size, size, 3], the inputs of training."""
    return np.random.RandomState(1).randint(0, 256, (batch, size, size, 3)).astype(np.uint8)


def sequences(batch: int, left: int, image: int, right: int, pieces: int, codes: int) -> np.ndarray:
    """Return int64[batch, left + image + right] for RUDOLPH, without padding."""
    rng = np.random.RandomState(0)
    texts = [rng.randint(FIRST_TEXT_ID, pieces, (batch, length)) for length in (left, right)]
    return np.concatenate([texts[0], rng.randint(0, codes, (batch, image)), texts[1]], axis=1)
