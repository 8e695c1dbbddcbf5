"""Position embeddings of the image tower for another resolution.

# N tokens, D width, n patches per side
"""

from __future__ import annotations

import numpy as np

from clip_jax.errors import InputError

CUBIC = -0.75  # PyTorch's coefficient; Pillow and jax.image take -0.5


def resize_position_embedding(embedding: np.ndarray, patches_per_side: int) -> np.ndarray:
    """Resizes float[1 + n*n, D] to float[1 + m*m, D] for m = patches_per_side, in its dtype.

    The class token's row is kept; the grid is resized as `torch.nn.functional.interpolate` does
    (bicubic, align_corners=False, no antialiasing), in float64.
    """
    embedding = np.asarray(embedding)
    old = round((len(embedding) - 1) ** 0.5)
    if embedding.ndim != 2 or old < 1 or 1 + old * old != len(embedding) or patches_per_side < 1:
        raise InputError(
            f"position embedding is {list(embedding.shape)} for {patches_per_side} patches a side; "
            "expected [1 + n*n, width] and at least one patch"
        )
    if old == patches_per_side:
        return embedding
    grid = embedding[1:].astype(np.float64).reshape(old, old, -1)
    weights = _cubic_weights(old, patches_per_side)
    grid = np.einsum("an,bm,nmD->abD", weights, weights, grid)
    new = np.concatenate([embedding[:1].astype(np.float64), grid.reshape(-1, grid.shape[-1])])
    return new.astype(embedding.dtype)


def _cubic_weights(old: int, new: int) -> np.ndarray:
    """Returns interpolation weights, float64[new, old], of four old points each; edges repeat."""
    weights = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        first = int(np.floor(centre)) - 1
        for source in range(first, first + 4):
            weights[row, np.clip(source, 0, old - 1)] += _cubic(abs(centre - source))
    return weights


def _cubic(t: float) -> float:
    # Keys 1981, equation 4, with free coefficient a.
    a = CUBIC
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
