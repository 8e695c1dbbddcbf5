"""Splash attention: Pallas's kernel for TPUs with masks that are known while tracing.

# B sequences, H heads, T tokens, K head size, P tokens padded to whole blocks
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import (
    BlockSizes,
    MultiHeadMask,
    NumpyMask,
    make_splash_mha_single_device,
)

from clip_jax.fused import ATTENTION_RESIDUALS
from clip_jax.tpu import LANES

LARGEST_BLOCK = 640  # with head size 128 its float32 scores take 1.6 MB of VMEM
# Each block has a fixed cost beside its size's: an estimate, of blocks of LANES tokens.
BLOCK_OVERHEAD = 1.0


def splash_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: np.ndarray | None, interpret: bool = False
) -> jax.Array:
    """Attends in float32; float[B, H, T, K] each, q scaled -> float[B, H, T, K].

    mask: bool[T, T], at least one key a query; None: all keys.
    """
    H, T = q.shape[1:3]
    mask = np.ones((T, T), bool) if mask is None else mask
    block = _cached_block(mask.tobytes(), T)
    P = -(-T // block) * block
    # Its tables of blocks are constants of the program that is traced, so it is made for each.
    kernel = _make_kernel(padded_mask(mask, P), H, block, interpret)
    # No compiler pass shares what is padded with the products before, so the padding is here.
    q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, P - T), (0, 0))) for x in (q, k, v))
    out: jax.Array = jax.vmap(kernel)(q, k, v)
    return out[:, :, :T].astype(q.dtype)


def padded_mask(mask: np.ndarray, P: int) -> np.ndarray:
    """Pads bool[T, T] to [P, P]; queries that are padding attend to the first key.

    A softmax over nothing would be NaN, also where its result is cut off: in gradients.
    """
    T = len(mask)
    padded = np.zeros((P, P), bool)
    padded[:T, :T] = mask
    padded[T:, 0] = True
    return padded


def choose_block(mask: np.ndarray) -> int:
    """Returns the side of blocks whose kept area, with their overhead, is the smallest."""
    T = len(mask)
    sides = range(LANES, min(LARGEST_BLOCK, -(-T // LANES) * LANES) + 1, LANES)

    def cost(side: int) -> float:
        return kept_blocks(mask, side) * side**2 * (1 + BLOCK_OVERHEAD * LANES / side)

    return min(sides, key=lambda side: (cost(side), -side))


def kept_blocks(mask: np.ndarray, side: int) -> int:
    """Counts the blocks of a mask that are computed: those that are not empty."""
    n = -(-len(mask) // side)
    padded = padded_mask(mask, n * side)
    return int(padded.reshape(n, side, n, side).any(axis=(1, 3)).sum())


@functools.lru_cache(maxsize=256)
def _cached_block(mask_bytes: bytes, T: int) -> int:
    return choose_block(np.frombuffer(mask_bytes, bool).reshape(T, T))


def _make_kernel(mask: np.ndarray, H: int, block: int, interpret: bool) -> Any:
    sizes = BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block,
        block_q_dkv=block, block_kv_dkv=block, block_kv_dkv_compute=block,
        block_q_dq=block, block_kv_dq=block,
    )  # fmt: skip
    return make_splash_mha_single_device(
        MultiHeadMask([NumpyMask(mask)] * H),
        block_sizes=sizes,
        interpret=interpret,
        residual_checkpoint_name=ATTENTION_RESIDUALS,
    )
