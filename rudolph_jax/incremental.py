"""RUDOLPH on unstacked parameters, continued from keys and values of earlier tokens.

# B sequences, P distinct prompts, T tokens, M tokens of a prompt, D width, H heads, K head size,
# C columns of the head
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from clip_jax.config import Compute
from clip_jax.layers import MATMUL_MODULES
from clip_jax.linear import slice_columns
from rudolph_jax.cache import KeyValue, LayerCache, Segment
from rudolph_jax.config import RudolphConfig
from rudolph_jax.int8 import is_int8
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_kinds, mask
from rudolph_jax.model import Head, Rudolph, UnrolledBlocks

Params = Mapping[str, Any]
KeyValues = list[KeyValue]  # of each layer, [P, H, M, K] each


def run(
    config: RudolphConfig,
    compute: Compute,
    params: Params,
    ids: jax.Array,
    start: int = 0,
    past: KeyValues | None = None,
) -> tuple[jax.Array, KeyValues]:
    """Runs int32[B, T] -> the last layer's output, float[B, T, D], and keys and values by layer.

    start: position of the first id.
    past: keys and values of the `start` ids before, from an earlier run; B is a multiple of its P,
        and the rows of a prompt are neighbours.
    """
    x = embed(config, compute, params, ids, start, method="embed")
    first = start + Layout(config).prefix * bool(start)
    here = slice(first, first + x.shape[1])
    kinds = layer_kinds(config)
    rows = {kind: jnp.asarray(mask(config, kind)[here]) for kind in set(kinds)}
    segments: list[list[Segment]] | None = None
    if past is not None:
        segments = [[(k, v, rows[t][:, :first])] for (k, v), t in zip(past, kinds, strict=True)]
    masks = {kind: row[:, here] for kind, row in rows.items()}
    return run_layers(config, params, x, masks, segments)


def run_layers(
    config: RudolphConfig,
    params: Params,
    x: jax.Array,
    masks: Mapping[str, jax.Array] | None,
    past: Sequence[Sequence[Segment]] | None = None,
    caches: Sequence[LayerCache] | None = None,
) -> tuple[jax.Array, KeyValues]:
    """Runs all layers: see `model.UnrolledBlocks`. Returns x and each layer's keys and values."""
    variables = {"params": params["layers"]}
    made: Any = UnrolledBlocks(config).apply(variables, x, masks, past, caches)
    return made[0], made[2]


def cast(params: Params, compute: Compute) -> Params:
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


def embed(
    config: RudolphConfig, compute: Compute, params: Params, *args: Any, method: str
) -> jax.Array:
    """One of the embedding methods of `model.Rudolph`."""
    tables = {name: value for name, value in params.items() if name != "layers"}
    model = Rudolph(config, compute, stacked=False)
    made: Any = model.apply({"params": tables}, *args, method=method)
    return made


def head(
    config: RudolphConfig, compute: Compute, params: Params, columns: slice
) -> Callable[[jax.Array], jax.Array]:
    """The function float[..., D] -> float32[..., C] that gives these columns of the logits.

    The head's kernel is sliced here, once, and not in each step of a loop.
    """
    sliced = {
        "kernel": slice_columns(params["head"]["kernel"], columns).astype(compute.dtype),
        "bias": params["head"]["bias"][columns],
    }
    module = Head(len(sliced["bias"]))

    def logits(x: jax.Array) -> jax.Array:
        y = embed(config, compute, params, x, method="final_norms")
        made: Any = module.apply({"params": sliced}, y)
        return made

    return logits
