"""Inverse Haar transform of one level (PyWavelets' db1), the wavelet decoder's last operation.

# B batch, H x W pixels of each band, c colours, V and U: vertical and horizontal band or pixel
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

# Synthesis filters of the low and of the high band.
LOW = np.array([0.5, 0.5], np.float32) ** 0.5
HIGH = np.array([1, -1], np.float32) * LOW


def inverse_dwt(coefficients: jax.Array) -> jax.Array:
    """Transforms float[B, H, W, 12] -> float[B, 2H, 2W, 3].

    The first three channels are the low band of each colour. Nine follow: for each colour the
    bands that are high vertically, high horizontally, high both ways.
    """
    B, H, W, _ = coefficients.shape
    low = coefficients[..., :3]
    vertical, horizontal, both = jnp.moveaxis(coefficients[..., 3:].reshape(B, H, W, 3, 3), -1, 0)
    # Sums, where a product with the filters would be rounded on some devices.
    rows = [[(low + v * vertical) + u * (horizontal + v * both) for u in (1, -1)] for v in (1, -1)]
    pixels = jnp.stack([jnp.stack(row, axis=3) for row in rows], axis=2) / 2  # B H 2 W 2 c
    return pixels.reshape(B, 2 * H, 2 * W, 3)


def downsample(images: jax.Array) -> jax.Array:
    """Averages 2x2 pixels, half of the low band: float[B, 2H, 2W, c] -> float[B, H, W, c]."""
    B, H, W, c = images.shape
    return images.reshape(B, H // 2, 2, W // 2, 2, c).mean((2, 4))
