"""Fused attention: kernels of JAX that never write the scores to memory.

tpu.py               Pallas splash attention, which skips blocks of a static mask that hold nothing
tpu_single_block.py  self-attention over sequences that are one block
gpu.py               cuDNN's flash attention

`attention.py` and RUDOLPH's model ask for a kernel while a program is traced; where none fits they
compute the plain form.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from clip_jax.errors import InputError
from clip_jax.platforms import traced_device_kind, traced_platform

SINGLE_BLOCK, SPLASH = "single_block", "splash"
INTERPRETED = "_interpreted"
KERNELS = (
    SINGLE_BLOCK, SINGLE_BLOCK + INTERPRETED, SPLASH, SPLASH + INTERPRETED, "cudnn", "off"
)  # fmt: skip
# Checkpoint name of what the backward pass of a kernel needs besides its arguments.
ATTENTION_RESIDUALS = "attention_residuals"
# Shorter sequences fill no block of splash attention or cuDNN's.
SHORTEST = 128

# Both are part of the key of every jitted function.
_forced = jax.make_user_context(None)
_sharded_axes = jax.make_user_context(((), None))


def force_kernel(name: str | None) -> contextlib.AbstractContextManager[None]:
    """Forces a kernel within the context, or "off"; None: by platform, dtype and shape.

    Those "interpreted" run the TPU's kernels on any platform, slowly, in any float dtype.
    """
    if name is not None and name not in KERNELS:
        raise InputError(f"kernel is {name!r}; expected one of {', '.join(KERNELS)}")
    context: contextlib.AbstractContextManager[None] = _forced(name)
    return context


def shard_over(
    batch_axes: tuple[str, ...], head_axis: str | None = None
) -> contextlib.AbstractContextManager[None]:
    """Tells the kernels, which no compiler shards, over which mesh axes batch and heads lie.

    Without it programs on a mesh of several devices get no kernel.
    """
    context: contextlib.AbstractContextManager[None] = _sharded_axes((batch_axes, head_axis))
    return context


def fused_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: np.ndarray | None
) -> jax.Array | None:
    """Attends with softmax(q k^T) v in one kernel; None where no kernel fits.

    # B sequences, H heads, T tokens, K head size

    q, k, v: float[B, H, T, K], q already scaled. mask: bool[T, T], which keys a query attends to,
    at least one each; None: all.
    """
    kernel = _choose(q.dtype, q.shape)
    if kernel is None or kernel.startswith(SINGLE_BLOCK):
        return None
    if kernel == "cudnn":
        from clip_jax.fused.gpu import cudnn_attention

        return cudnn_attention(q, k, v, mask)
    from clip_jax.fused.tpu import splash_attention

    interpret = kernel.endswith(INTERPRETED)
    batch_axes, head_axis = _sharded_axes.value

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return splash_attention(q, k, v, mask, interpret)

    spec = PartitionSpec(batch_axes, head_axis)
    # As the kernel reads them: saved as one array they would be taken apart again.
    q, k, v = checkpoint_name((q, k, v), ATTENTION_RESIDUALS)
    return _on_each_device(attend, (spec,) * 3, spec)(q, k, v)


def fused_self_attention(qkv: jax.Array, mask: np.ndarray | None) -> jax.Array | None:
    """Attends in one kernel: queries, keys and values float[B, T, 3, H, K] -> float[B, T, H, K].

    mask: as of `fused_attention`. None where no kernel fits.
    """
    y = _single_block(qkv, mask)
    if y is not None:
        return y
    q, k, v = jnp.einsum("BTcHK->cBHTK", qkv)
    y = fused_attention(q * q.shape[-1] ** -0.5, k, v, mask)
    return None if y is None else jnp.einsum("BHTK->BTHK", y)


def _single_block(qkv: jax.Array, mask: np.ndarray | None) -> jax.Array | None:
    from clip_jax.fused.tpu_single_block import fits_single_block, single_block_attention

    forced: str | None = _forced.value
    T, (H, K) = qkv.shape[1], qkv.shape[3:]
    chosen = forced or (SINGLE_BLOCK if _on_tpu(qkv.dtype) and _has_large_vmem() else "off")
    kind = traced_device_kind() if forced is None else "TPU v5 lite"
    fits = fits_single_block(T, H // _head_shards(), K, kind)
    if not chosen.startswith(SINGLE_BLOCK) or not fits or not _placed():
        return None
    batch_axes, head_axis = _sharded_axes.value

    def attend(qkv: jax.Array) -> jax.Array:
        B, T, _, *shape = qkv.shape
        flat = qkv.reshape(B, T, -1)
        y = single_block_attention(flat, K, mask, chosen.endswith(INTERPRETED))
        return y.reshape(B, T, *shape)

    # Heads and their size stay one axis where no device has heads of its own, see `linear.py`.
    if not heads_are_sharded():
        qkv = qkv.reshape(*qkv.shape[:3], H * K)
    specs = (PartitionSpec(batch_axes, None, None, head_axis),)
    y = _on_each_device(attend, specs, PartitionSpec(batch_axes, None, head_axis))(qkv)
    return y.reshape(*y.shape[:2], H, K)


def heads_are_sharded() -> bool:
    """Returns whether a mesh splits the heads of the program that is traced."""
    return _head_shards() > 1


def _head_shards() -> int:
    mesh, (_, head_axis) = jax.sharding.get_abstract_mesh(), _sharded_axes.value
    return 1 if mesh.empty or not head_axis else mesh.shape[head_axis]


def _on_each_device(
    attend: Callable[..., jax.Array], in_specs: tuple[PartitionSpec, ...], out_spec: PartitionSpec
) -> Callable[..., jax.Array]:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attend
    return jax.shard_map(attend, in_specs=in_specs, out_specs=out_spec, check_vma=False)


def _placed() -> bool:
    """Returns whether it is known where batch and heads lie."""
    mesh, (batch_axes, _) = jax.sharding.get_abstract_mesh(), _sharded_axes.value
    return mesh.empty or mesh.size == 1 or bool(batch_axes)


def _choose(dtype: jnp.dtype, shape: tuple[int, ...]) -> str | None:
    forced: str | None = _forced.value
    kernel = forced or _of_platform(dtype, shape)
    if kernel in (None, "off") or shape[2] < SHORTEST:
        return None
    return kernel if _placed() or kernel == "cudnn" else None  # cuDNN's call is shardable itself


def _of_platform(dtype: jnp.dtype, shape: tuple[int, ...]) -> str | None:
    if _on_tpu(dtype):
        return SPLASH
    if traced_platform() == "gpu" and dtype in (jnp.bfloat16, jnp.float16):
        from clip_jax.fused.gpu import fits_cudnn

        return "cudnn" if fits_cudnn(shape) else None
    return None


def _on_tpu(dtype: jnp.dtype) -> bool:
    # In float32 the products of these kernels would be rounded.
    return traced_platform() == "tpu" and dtype == jnp.bfloat16


def _has_large_vmem() -> bool:
    """Returns whether a TPU has more than the 16 MB of those up to v4."""
    return not traced_device_kind().startswith(("TPU v2", "TPU v3", "TPU v4"))
