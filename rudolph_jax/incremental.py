"""RUDOLPH with a key-value cache, on unstacked parameters.

# B sequences, P distinct prompts, T tokens, M tokens of a prompt, D width, H heads, K head size,
# C logits, of a slice of the vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.config import Compute
from clip_jax.layers import MATMUL_MODULES
from clip_jax.linear import slice_columns
from rudolph_jax.cache import KeyValue, KeyValueMask, LayerCache
from rudolph_jax.config import RudolphConfig
from rudolph_jax.int8 import is_int8
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_mask_types, mask
from rudolph_jax.model import Head, Rudolph, UnrolledBlocks

Params = Mapping[str, Any]
KeyValues = list[KeyValue]  # of each layer, keys and values [P, H, M, K]


def forward_with_cache(
    config: RudolphConfig,
    compute: Compute,
    params: Params,
    ids: jax.Array,
    start: int = 0,
    past_key_values: KeyValues | None = None,
) -> tuple[jax.Array, KeyValues]:
    """Runs int32[B, T] -> the last layer's output, float[B, T, D], and keys and values by layer.

    start: position of the first id.
    past_key_values: of the `start` ids before, from an earlier call; B is a multiple of its P, and
        the sequences of a prompt are consecutive.
    """
    x = apply_embedding(config, compute, params, ids, start, method="embed")
    first = start + Layout(config).num_prefix_tokens * bool(start)
    queries = slice(first, first + x.shape[1])
    mask_types = layer_mask_types(config)
    rows = {name: mask(config, name)[queries] for name in set(mask_types)}
    past: list[list[KeyValueMask]] | None = None
    if past_key_values is not None:
        past = [
            [(k, v, jnp.asarray(rows[name][:, :first]))]
            for (k, v), name in zip(past_key_values, mask_types, strict=True)
        ]
    masks = {name: row[:, queries] for name, row in rows.items()}
    return run_layers(config, params, x, masks, past, fused=compute.fused_attention)


def run_layers(
    config: RudolphConfig,
    params: Params,
    x: jax.Array,
    masks: Mapping[str, jax.Array | np.ndarray] | None,
    past: Sequence[Sequence[KeyValueMask]] | None = None,
    caches: Sequence[LayerCache] | None = None,
    fused: bool = True,
) -> tuple[jax.Array, KeyValues]:
    """Runs all layers: see `model.UnrolledBlocks`. Returns x and each layer's keys and values."""
    variables = {"params": params["layers"]}
    out: Any = UnrolledBlocks(config, fused).apply(variables, x, masks, past, caches)
    return out[0], out[2]


def cast_params(params: Params, compute: Compute) -> Params:
    """Casts the layers' kernels to the compute dtype, once and not in each step of a loop.

    Norms and embedding tables, which are used in float32, stay as they are. So do int8 kernels,
    which each step reads as int8.
    """
    dtype = jnp.dtype(compute.dtype)

    def leaf(x: Any) -> Any:
        return x if is_int8(x) else x.astype(dtype)

    layers = {
        number: {
            name: jax.tree.map(leaf, part, is_leaf=is_int8) if name in MATMUL_MODULES else part
            for name, part in layer.items()
        }
        for number, layer in params["layers"].items()
    }
    return {**params, "layers": layers}


def apply_embedding(
    config: RudolphConfig, compute: Compute, params: Params, *args: Any, method: str
) -> jax.Array:
    """Applies `method` of `model.Rudolph`, one that needs no layers."""
    tables = {name: value for name, value in params.items() if name != "layers"}
    model = Rudolph(config, compute, stacked=False)
    out: Any = model.apply({"params": tables}, *args, method=method)
    return out


def make_logits_fn(
    config: RudolphConfig, compute: Compute, params: Params, logit_slice: slice
) -> Callable[[jax.Array], jax.Array]:
    """Returns the function float[..., D] -> float32[..., C] that computes some of the logits.

    The head's kernel is sliced here, once, and not in each step of a loop.
    """
    sliced = {
        "kernel": slice_columns(params["head"]["kernel"], logit_slice).astype(compute.dtype),
        "bias": params["head"]["bias"][logit_slice],
    }
    module = Head(len(sliced["bias"]))

    def logits(x: jax.Array) -> jax.Array:
        y = apply_embedding(config, compute, params, x, method="final_norms")
        out: Any = module.apply({"params": sliced}, y)
        return out

    return logits
