"""The lines by which loaded models introduce themselves: kind, preset, size, dtypes, device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax

from clip_jax.config import Compute


def model_repr(
    name: str,
    config: Any,
    presets: Mapping[str, Any],
    params: Mapping[str, Any],
    compute: Compute,
    *inputs: str,
) -> str:
    """Formats two lines.

    name: of the class.
    presets: published sizes by name, of which all that equal the config are named.
    params: parameters; kernels may be quantized or transposed, which are trees of arrays.
    inputs: what the model takes, one phrase each.
    """
    known = "/".join(preset for preset, sizes in presets.items() if sizes == config)
    arrays = jax.tree.leaves(params)
    # A quantized kernel's scales, one to a channel, are no parameters of the model.
    count = sum(math.prod(each.shape) for each in arrays) - _count_scales(params)
    dtypes = sorted({str(each.dtype) for each in arrays})
    stored, computed = " and ".join(dtypes), compute.dtype
    dtype = stored if stored == computed else f"stored as {stored}, computing in {computed}"
    devices = {str(d) for each in arrays if isinstance(each, jax.Array) for d in each.devices()}
    where = ", ".join(sorted(devices)) if devices else "host memory"
    head = f"{known}, {count:,} parameters" if known else f"{count:,} parameters"
    return f"{name}({head}, {dtype}, on {where},\n    {', '.join(inputs)})"


def describe_tokenizer(tokenizer: Any) -> str:
    """Describes a tokenizer, or its absence, in a phrase."""
    if tokenizer is None:
        return "no tokenizer"
    return f"tokenizer of {tokenizer.vocab_size:,} pieces"


def _count_scales(params: Mapping[str, Any]) -> int:
    has_scale = jax.tree.leaves(params, is_leaf=lambda leaf: hasattr(leaf, "scale"))
    return sum(math.prod(leaf.scale.shape) for leaf in has_scale if hasattr(leaf, "scale"))
