"""Sizes of CLIP's image tower, inferred from its tensors under OpenAI's names."""

from __future__ import annotations

import math
import re

from clip_jax.config import VisionConfig
from clip_jax.errors import InputError
from converters.weights import Weights

CONFIG_SOURCE = "the shape of the other tensors"
HEAD_SIZE = 64  # the size of a head in all published towers


def tensor_shape(weights: Weights, name: str, rank: int) -> tuple[int, ...]:
    """Return the shape of a required tensor; InputError unless it has this rank."""
    if name not in weights.tensors:
        raise InputError(f"{weights.path}: tensor {name!r} is missing; a CLIP with a ViT has it")
    shape, file = weights.tensors[name].shape, weights.file_of(name)
    if len(shape) != rank:
        raise InputError(f"{file}: tensor {name!r} has shape {list(shape)}; expected {rank} axes")
    return shape


def layer_count(weights: Weights, prefix: str, first: str = "ln_1.weight") -> int:
    """Return the highest layer index plus one. A gap is found later, as a missing tensor."""
    pattern = re.compile(re.escape(prefix) + r"([0-9]{1,4})\.")
    numbers = [int(m[1]) for name in weights.tensors if (m := pattern.match(name))]
    if not numbers:
        raise InputError(f"{weights.path}: tensor {prefix + '0.' + first!r} is missing")
    return 1 + max(numbers)


def head_count(weights: Weights, name: str, width: int) -> int:
    """Return the number of heads of a tower. name: the tensor that its width comes from."""
    if not width or width % HEAD_SIZE:
        raise InputError(
            f"{weights.file_of(name)}: tensor {name!r} is {width} wide; expected a multiple of "
            f"{HEAD_SIZE}, the size of a head"
        )
    return width // HEAD_SIZE


def infer_vision_config(weights: Weights, prefix: str, heads: int | None = None) -> VisionConfig:
    """Infer the tower whose tensors begin with `prefix`. heads: None where heads have HEAD_SIZE."""
    signature, positions = f"{prefix}conv1.weight", f"{prefix}positional_embedding"
    width, _, patch, _ = tensor_shape(weights, signature, 4)
    tokens, _ = tensor_shape(weights, positions, 2)
    side = math.isqrt(max(tokens - 1, 0))
    if tokens != 1 + side**2 or not side:
        raise InputError(
            f"{weights.file_of(positions)}: tensor {positions!r} has {tokens} rows; expected 1 + "
            "a square"
        )
    if heads is None:
        heads = head_count(weights, signature, width)
    layers = layer_count(weights, f"{prefix}transformer.resblocks.")
    try:
        return VisionConfig(patch * side, patch, width, layers, heads, 4 * width)
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error
