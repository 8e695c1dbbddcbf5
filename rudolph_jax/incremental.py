"""The layers one by one, on parameters as they lie in a model folder, with what was seen before.

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
    """int32[B, T] -> what the last layer puts out, float[B, T, D]; keys and values of each layer.

    start: place of the first id. past: of the `start` ids before, from an earlier run; B is a
    multiple of its P, and the rows of a prompt lie side by side.
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
    """What the layers multiply by in the dtype that they compute in, once and not in each turn.

    Norms and tables stay as they are: they are summed in float32. So do kernels of eight bits,
    which are to be read as such in each turn.
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

    The head's kernel is cut here, once, not in each turn of a loop.
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
