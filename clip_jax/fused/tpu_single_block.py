"""Self-attention on TPUs over sequences that are one block, as those of ruCLIP and RUDOLPH-350M.

# B sequences, T tokens, H heads, K head size, D = H K

Queries, keys and values are read as the product before makes them, [B, T, 3 D], and their gradient
is written so. Splash attention wants [B, H, T, K], padded to multiples of 128 tokens: by the
compiler's cycles those copies take longer than attention does for 197 tokens. Here the scores of a
head, float32[T, T], are in VMEM all at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from clip_jax.fused import ATTENTION_RESIDUALS
from clip_jax.tpu import LANES

WIDEST_GROUP = 640  # lanes of heads whose products are unrolled: 8 heads of size 80
LONGEST = 640  # its float32 scores take 1.6 MB of VMEM, of which the backward pass holds five
VMEM_BYTES = 64 * 2**20  # of a v5p's core; 577 tokens of width 1,024 take 22
LARGE_VMEM_BYTES = 112 * 2**20  # of the 128 MB of a v5e's or v6e's core
LARGE_VMEM_KINDS = ("TPU v5 lite", "TPU v5e", "TPU v6 lite", "TPU v6e")
_MASKED_SCORE = -1e30


def fits_single_block(T: int, H: int, K: int, device_kind: str = "TPU v5 lite") -> bool:
    """Returns whether groups of heads fill whole lanes and a sequence fits into VMEM.

    Of longer sequences only heads of other sizes than whole lanes, which splash attention would
    pad: it skips blocks of the mask that are empty, and here all are computed.
    """
    if group_width(K) > WIDEST_GROUP or H * K % group_width(K):
        return False
    if T <= LONGEST:
        return True
    large = device_kind in LARGE_VMEM_KINDS
    return K % LANES != 0 and large and backward_bytes(T, H * K) <= LARGE_VMEM_BYTES


def group_width(K: int) -> int:
    """Returns the fewest lanes that whole heads fill."""
    return math.lcm(K, LANES)


def backward_bytes(T: int, D: int) -> int:
    """Returns the VMEM of the backward pass: the blocks of two sequences, and a head's scores.

    Blocks are qkv, out, d_out and d_qkv, eight times [T, D] in two bytes.
    """
    return 2 * 8 * T * D * 2 + 5 * T * T * 4


def single_block_attention(
    qkv: jax.Array, K: int, mask: np.ndarray | None, interpret: bool = False
) -> jax.Array:
    """Attends in float32: queries, keys and values float[B, T, 3 D] -> float[B, T, D].

    K: head size. mask: bool[T, T], at least one key a query; None: all keys. interpret: run on any
    platform.
    """
    return _attend(qkv, None if mask is None else jnp.asarray(mask, jnp.int8), K, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _attend(qkv: jax.Array, mask: jax.Array | None, K: int, interpret: bool) -> jax.Array:
    B, T, D = *qkv.shape[:2], qkv.shape[2] // 3
    kernel = functools.partial(_forward_kernel, K=K)
    return _call(kernel, "single_block_attention_forward", mask, [qkv], (B, T, D), interpret)


def _forward(
    qkv: jax.Array, mask: jax.Array | None, K: int, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, jax.Array | None, jax.Array]]:
    out = checkpoint_name(_attend(qkv, mask, K, interpret), ATTENTION_RESIDUALS)
    return out, (qkv, mask, out)


def _backward(
    K: int,
    interpret: bool,
    saved: tuple[jax.Array, jax.Array | None, jax.Array],
    d_out: jax.Array,
) -> tuple[jax.Array, None]:
    qkv, mask, out = saved
    kernel = functools.partial(_backward_kernel, K=K)
    name = "single_block_attention_backward"
    return _call(kernel, name, mask, [qkv, out, d_out], qkv.shape, interpret), None


_attend.defvjp(_forward, _backward)


def _call(
    kernel: Callable[..., None],
    name: str,
    mask: jax.Array | None,
    arrays: list[jax.Array],
    out_shape: tuple[int, ...],
    interpret: bool,
) -> jax.Array:
    """Runs a kernel once a sequence, on all of its tokens."""

    def one_sequence(shape: tuple[int, ...]) -> pl.BlockSpec:
        return pl.BlockSpec((1, *shape[1:]), lambda b: (b, 0, 0))

    specs = [one_sequence(array.shape) for array in arrays]
    if mask is None:
        kernel = functools.partial(kernel, None)
    else:
        specs, arrays = [pl.BlockSpec(mask.shape, lambda b: (0, 0)), *specs], [mask, *arrays]
    out: jax.Array = pl.pallas_call(
        kernel,
        name=name,
        grid=(out_shape[0],),
        in_specs=specs,
        out_specs=one_sequence(out_shape),
        out_shape=jax.ShapeDtypeStruct(out_shape, arrays[-1].dtype),
        interpret=interpret,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",),
            vmem_limit_bytes=VMEM_BYTES if out_shape[1] <= LONGEST else LARGE_VMEM_BYTES,
        ),
    )(*arrays)
    return out


def _forward_kernel(mask_ref: Any, qkv_ref: Any, out_ref: Any, *, K: int) -> None:
    D = out_ref.shape[2]

    def run(group: jax.Array, _: None) -> None:
        outs = []
        q, k, v = (_lanes(qkv_ref, c * D, group, K) for c in range(3))
        for head in _heads(K):
            weights, total = _softmax(q[:, head], k[:, head], mask_ref)
            out = jnp.dot(weights.astype(v.dtype), v[:, head], preferred_element_type=jnp.float32)
            outs.append(out / total)
        _store(out_ref, 0, group, outs)

    jax.lax.fori_loop(0, D // group_width(K), run, None)


def _backward_kernel(
    mask_ref: Any, qkv_ref: Any, out_ref: Any, d_out_ref: Any, d_qkv_ref: Any, *, K: int
) -> None:
    D = out_ref.shape[2]

    def run(group: jax.Array, _: None) -> None:
        gradients: list[list[jax.Array]] = [[], [], []]
        q, k, v = (_lanes(qkv_ref, c * D, group, K) for c in range(3))
        out, d_out = _lanes(out_ref, 0, group, K), _lanes(d_out_ref, 0, group, K)
        for head in _heads(K):
            weights, total = _softmax(q[:, head], k[:, head], mask_ref)
            weights = weights / total
            d_weights = _product(d_out[:, head], v[:, head], 1, 1)
            # Sum over keys of weights * d_weights (Dao et al. 2022, appendix B.2).
            mean = (out[:, head].astype(jnp.float32) * d_out[:, head]).sum(axis=1, keepdims=True)
            d_scores = (weights * (d_weights - mean) * K**-0.5).astype(q.dtype)
            gradients[0].append(_product(d_scores, k[:, head], 1, 0))
            gradients[1].append(_product(d_scores, q[:, head], 0, 0))
            gradients[2].append(_product(weights.astype(v.dtype), d_out[:, head], 0, 0))
        for c in range(3):
            _store(d_qkv_ref, c * D, group, gradients[c])

    jax.lax.fori_loop(0, D // group_width(K), run, None)


def _softmax(q: jax.Array, k: jax.Array, mask_ref: Any) -> tuple[jax.Array, jax.Array]:
    """Returns the weights of a head before normalisation, float32[T, T], and their sums [T, 1]."""
    scores = _product(q, k, 1, 1) * q.shape[1] ** -0.5
    if mask_ref is not None:
        scores = jnp.where(mask_ref[...].astype(jnp.int32) != 0, scores, _MASKED_SCORE)
    weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
    return weights, weights.sum(axis=1, keepdims=True)


def _product(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    """Contracts these axes of two matrices in float32."""
    dimensions = (((axis_a,), (axis_b,)), ((), ()))
    return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _heads(K: int) -> list[slice]:
    return [slice(start, start + K) for start in range(0, group_width(K), K)]


def _lanes(ref: Any, offset: int, group: jax.Array, K: int) -> jax.Array:
    """Reads the heads of a group, [T, group_width(K)]."""
    return ref[0, :, _columns(offset, group, group_width(K))]


def _store(ref: Any, offset: int, group: jax.Array, heads: list[jax.Array]) -> None:
    values = jnp.concatenate(heads, axis=-1).astype(ref.dtype)
    ref[0, :, _columns(offset, group, values.shape[1])] = values


def _columns(offset: int, group: jax.Array, width: int) -> Any:
    return pl.ds(pl.multiple_of(offset + group * width, LANES), width)
