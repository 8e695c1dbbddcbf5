"""cuDNN's flash attention by `jax.nn.dot_product_attention`.

# B sequences, H heads, T tokens, K head size
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

LARGEST_HEAD = 128  # with gradients, on every GPU that cuDNN's kernel supports
OLDEST_COMPUTE_CAPABILITY = 8.0  # Ampere


def fits_cudnn(shape: tuple[int, ...]) -> bool:
    """Returns whether cuDNN is here and takes float[B, H, T, K] of this shape with gradients."""
    return shape[3] % 8 == 0 and shape[3] <= LARGEST_HEAD and _has_cudnn()


def cudnn_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: np.ndarray | None
) -> jax.Array:
    """Attends in float32; bfloat16 or float16 [B, H, T, K] each, q scaled -> the same.

    mask: bool[T, T]; None: all keys. An odd length with a mask is padded to an even one, which
    cuDNN's bias needs.
    """
    T = q.shape[2]
    odd = T % 2 if mask is not None else 0
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, odd), (0, 0))) for x in (q, k, v))
    if mask is not None and odd:
        padded = np.zeros((T + 1, T + 1), bool)
        padded[:T, :T], padded[T, 0] = mask, True
        mask = padded
    q, k, v = (jnp.einsum("BHTK->BTHK", x) for x in (q, k, v))
    allowed = None if mask is None else jnp.asarray(mask)[None, None]
    y = jax.nn.dot_product_attention(
        q, k, v, mask=allowed, scale=1.0, implementation="cudnn"
    )
    return jnp.einsum("BTHK->BHTK", y)[:, :, :T]


@functools.cache
def _has_cudnn() -> bool:
    """Returns whether this process has a GPU of NVIDIA that runs the kernel."""
    gpus = [device for device in jax.devices() if device.platform == "gpu"]
    capability = getattr(gpus[0], "compute_capability", "0") if gpus else "0"
    try:  # "9.0"; AMD's are names
        return float(capability) >= OLDEST_COMPUTE_CAPABILITY
    except ValueError:
        return False
