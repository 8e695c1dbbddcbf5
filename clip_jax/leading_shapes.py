"""Shapes of a few parameters that follow from a config by arithmetic alone.

A config is compared with the headers of stored arrays by these before a model of its sizes is
traced: path -> {field of the config: size of the axis}. Several fields are joined by " + ".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_jax.config import ClipConfig, RuclipSmallConfig

Leading = Mapping[str, Mapping[str, int]]


def leading_shapes(config: ClipConfig | RuclipSmallConfig) -> Leading:
    """Returns the shapes of tables, projections and the last layer of both towers."""
    found: dict[str, dict[str, int]] = {}
    vision, text = config.vision, config.text
    found["visual/class_embedding"] = _sizes(config, "vision.width")
    found["visual/position_embedding"] = {
        "vision.image_size": vision.tokens, "vision.width": vision.width,
    }  # fmt: skip
    found["text/token_embedding"] = _sizes(config, "text.vocab_size", "text.width")
    found["text/position_embedding"] = _sizes(config, "text.context_length", "text.width")
    for tower, path, layers in (("vision", "visual", vision.layers), ("text", "text", text.layers)):
        last = f"{path}/layers/{layers - 1}"
        found[f"{last}/mlp_norm/scale"] = {f"{tower}.layers": getattr(config, tower).width}
        found[f"{last}/mlp/in_bias"] = _sizes(config, f"{tower}.mlp_width")
    if isinstance(config, RuclipSmallConfig):
        found["visual/projection"] = _sizes(config, "vision.width", "visual_width")
        found["visual_projection/in_kernel"] = _sizes(config, "visual_width", "embed_dim")
        found["text_projection/in_kernel"] = _sizes(config, "text.width", "embed_dim")
    else:
        found["text/projection"] = _sizes(config, "text.width", "embed_dim")
        found["visual/projection"] = _sizes(config, "vision.width", "embed_dim")
    return found


def _sizes(config: Any, *names: str) -> dict[str, int]:
    sizes = {}
    for name in names:
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        sizes[name] = value
    return sizes
