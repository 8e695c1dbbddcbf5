"""What every peer is given: the same numbers from numpy in any environment."""

import numpy as np

PAD, EOS, FIRST = 0, 3, 4  # ruCLIP's ids, and the first that is no special one
# Of ruCLIP's pixels: RGB.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Of AdamW in training, without weight decay, whose choice of parameters is each project's own.
RATE, BETAS, EPSILON, CLIP_NORM = 1e-5, (0.9, 0.95), 1e-8, 1.0


def pixels(batch: int, size: int) -> np.ndarray:
    """float32[batch, size, size, 3] of unit normal values."""
    numbers = np.random.RandomState(0).standard_normal((batch, size, size, 3))
    return numbers.astype(np.float32)


def texts(batch: int, length: int, vocab_size: int) -> np.ndarray:
    """int64[batch, length]: texts that end somewhere, padded as ruCLIP's processor pads."""
    rng = np.random.RandomState(0)
    ids = rng.randint(FIRST, vocab_size, (batch, length))
    ends = rng.randint(length // 2, length, (batch, 1))
    places = np.arange(length)
    return np.where(places < ends, ids, np.where(places == ends, EOS, PAD))


def embeddings(batch: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows float32[batch, width] of images and of texts, as before any training."""
    rows = np.random.RandomState(0).standard_normal((2, batch, width))
    image, text = (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)
    return image, text


def pictures(batch: int, size: int) -> np.ndarray:
    """uint8[batch, size, size, 3]: what training takes."""
    return np.random.RandomState(1).randint(0, 256, (batch, size, size, 3)).astype(np.uint8)


def sequences(batch: int, left: int, image: int, right: int, pieces: int, codes: int) -> np.ndarray:
    """int64[batch, left + image + right] for RUDOLPH, without padding."""
    rng = np.random.RandomState(0)
    texts = [rng.randint(FIRST, pieces, (batch, length)) for length in (left, right)]
    return np.concatenate([texts[0], rng.randint(0, codes, (batch, image)), texts[1]], axis=1)
