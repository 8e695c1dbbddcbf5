"""Fused attention: kernels of JAX that never write the scores to memory.

tpu.py  Pallas splash attention, which skips blocks of a static mask that hold nothing
gpu.py  cuDNN's flash attention

`attention.py` and RUDOLPH's model ask `fused_attention` while a program is traced; where no kernel
fits they compute the plain form.
"""

from __future__ import annotations

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from clip_jax.errors import InputError
from clip_jax.platforms import traced_platform

KERNELS = ("splash", "splash_interpreted", "cudnn", "off")
# Checkpoint name of what the backward pass of a kernel needs besides its arguments.
ATTENTION_RESIDUALS = "attention_residuals"
# Shorter sequences fill no block of a kernel.
SHORTEST = 128

# Both are part of the key of every jitted function.
_forced = jax.make_user_context(None)
_sharded_axes = jax.make_user_context(((), None))


def force_kernel(name: str | None) -> contextlib.AbstractContextManager[None]:
    """Forces a kernel within the context, or "off"; None: by platform, dtype and shape.

    "splash_interpreted" runs the TPU's kernel on any platform, slowly, in any float dtype.
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
    if kernel is None:
        return None
    if kernel == "cudnn":
        from clip_jax.fused.gpu import cudnn_attention

        return cudnn_attention(q, k, v, mask)
    from clip_jax.fused.tpu import splash_attention

    interpret = kernel == "splash_interpreted"
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return splash_attention(q, k, v, mask, interpret)
    batch_axes, head_axis = _sharded_axes.value
    spec = PartitionSpec(batch_axes, head_axis)

    @jax.shard_map(in_specs=(spec,) * 3, out_specs=spec, check_vma=False)
    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return splash_attention(q, k, v, mask, interpret)

    return attend(q, k, v)


def _choose(dtype: jnp.dtype, shape: tuple[int, ...]) -> str | None:
    forced: str | None = _forced.value
    kernel = forced or _of_platform(dtype, shape)
    if kernel in (None, "off") or shape[2] < SHORTEST:
        return None
    mesh, (batch_axes, _) = jax.sharding.get_abstract_mesh(), _sharded_axes.value
    alone = mesh.empty or mesh.size == 1 or kernel == "cudnn"  # cuDNN's call is shardable itself
    return kernel if alone or batch_axes else None


def _of_platform(dtype: jnp.dtype, shape: tuple[int, ...]) -> str | None:
    platform = traced_platform()
    if platform == "tpu" and dtype == jnp.bfloat16:  # in float32 its products would be rounded
        return "splash"
    if platform == "gpu" and dtype in (jnp.bfloat16, jnp.float16):
        from clip_jax.fused.gpu import fits_cudnn

        return "cudnn" if fits_cudnn(shape) else None
    return None
