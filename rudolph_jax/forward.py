"""The layers one by one, on parameters as they lie in a model folder, with what was seen before.

# B sequences, P distinct prompts, T tokens, M tokens of a prompt, D width, H heads, K head size,
# C columns of the head
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from clip_jax.config import Compute
from clip_jax.layers import MULTIPLIED
from clip_jax.linear import einsum, slice_columns
from rudolph_jax.cache import KeyValue, LayerCache, Segment
from rudolph_jax.config import RudolphConfig
from rudolph_jax.int8 import is_int8
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_kinds, mask
from rudolph_jax.model import Block, Rudolph

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
    key_values = []
    for layer, kind in enumerate(layer_kinds(config)):
        allowed = jnp.asarray(mask(config, kind)[here])
        seen = []
        if past is not None:
            seen = [(*past[layer], allowed[:, :first])]
        x, key_value = block(config, compute, params, layer, x, allowed[:, here], seen)
        key_values.append(key_value)
    return x, key_values


def block(
    config: RudolphConfig,
    compute: Compute,
    params: Params,
    layer: int,
    x: jax.Array,
    allowed: jax.Array,
    past: Sequence[Segment],
    cache: LayerCache | None = None,
) -> tuple[jax.Array, KeyValue]:
    """One layer: see `model.Block`."""
    variables = {"params": params["layers"][str(layer)]}
    made: Any = Block(config).apply(variables, x, allowed, past, cache=cache)
    return made


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
            name: jax.tree.map(leaf, part, is_leaf=is_int8) if name in MULTIPLIED else part
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
    kernel = slice_columns(params["head"]["kernel"], columns).astype(compute.dtype)
    bias = params["head"]["bias"][columns]

    def logits(x: jax.Array) -> jax.Array:
        y = embed(config, compute, params, x, method="normed")
        rows = string.ascii_lowercase[: y.ndim - 1]
        return einsum(f"{rows}D,DC->{rows}C", y, kernel, jnp.float32) + bias

    return logits
