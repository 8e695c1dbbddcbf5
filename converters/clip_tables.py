"""OpenAI's tensor names and our parameters' shapes, common to the CLIP converters.

ruCLIP kept OpenAI's names. Letters in patterns: d width, h heads, k head size, c query/key/value,
e embedding, f mlp width, n image tokens, s context, v vocabulary, y x patch, rgb channels.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from clip_jax.config import ClipConfig
from clip_jax.errors import InputError
from clip_jax.layers import unstack_layers
from clip_jax.model import abstract_params
from converters.rules import Rule, Shape, shapes_of
from converters.signatures import SIGNATURES
from converters.weights import Weights


def _blocks(source: str, target: str) -> tuple[Rule, ...]:
    """Map a residual block of either tower from OpenAI's names."""
    return (
        Rule(f"{source}.ln_1.weight", f"{target}/attention_norm/scale"),
        Rule(f"{source}.ln_1.bias", f"{target}/attention_norm/bias"),
        Rule(
            f"{source}.attn.in_proj_weight",
            f"{target}/attention/qkv_kernel",
            "(c h k) d -> d c h k",
        ),
        Rule(f"{source}.attn.in_proj_bias", f"{target}/attention/qkv_bias", "(c h k) -> c h k"),
        Rule(
            f"{source}.attn.out_proj.weight",
            f"{target}/attention/out_kernel",
            "d (h k) -> h k d",
        ),
        Rule(f"{source}.attn.out_proj.bias", f"{target}/attention/out_bias"),
        Rule(f"{source}.ln_2.weight", f"{target}/mlp_norm/scale"),
        Rule(f"{source}.ln_2.bias", f"{target}/mlp_norm/bias"),
        Rule(f"{source}.mlp.c_fc.weight", f"{target}/mlp/in_kernel", "f d -> d f"),
        Rule(f"{source}.mlp.c_fc.bias", f"{target}/mlp/in_bias"),
        Rule(f"{source}.mlp.c_proj.weight", f"{target}/mlp/out_kernel", "d f -> f d"),
        Rule(f"{source}.mlp.c_proj.bias", f"{target}/mlp/out_bias"),
    )


OPENAI_RULES: tuple[Rule, ...] = (
    Rule("visual.conv1.weight", "visual/patch_embedding/kernel", "d rgb y x -> y x rgb d"),
    Rule("visual.class_embedding", "visual/class_embedding"),
    Rule("visual.positional_embedding", "visual/position_embedding"),
    Rule("visual.ln_pre.weight", "visual/pre_norm/scale"),
    Rule("visual.ln_pre.bias", "visual/pre_norm/bias"),
    *_blocks("visual.transformer.resblocks.{i}", "visual/layers/{i}"),
    Rule("visual.ln_post.weight", "visual/post_norm/scale"),
    Rule("visual.ln_post.bias", "visual/post_norm/bias"),
    Rule("visual.proj", "visual/projection"),
    Rule("token_embedding.weight", "text/token_embedding"),
    Rule("positional_embedding", "text/position_embedding"),
    *_blocks("transformer.resblocks.{i}", "text/layers/{i}"),
    Rule("ln_final.weight", "text/final_norm/scale"),
    Rule("ln_final.bias", "text/final_norm/bias"),
    Rule("text_projection", "text/projection"),
    Rule("logit_scale", "logit_scale"),
)


def require_kind(weights: Weights, kind: str, signature: str) -> None:
    """Raise InputError, naming the kind it looks like, unless the signature tensor is there."""
    found = next((name for name in SIGNATURES if name in weights.tensors), None)
    if found != signature:
        looks = f"it looks like {SIGNATURES[found]}" if found else "it looks like no known model"
        lacks = "" if signature in weights.tensors else f" has no tensor {signature!r};"
        raise InputError(f"{weights.path}: not {kind}:{lacks} {looks}")


@functools.cache
def parameter_shapes(config: ClipConfig) -> Mapping[str, Shape]:
    """Map path to shape for every parameter, with layers separate."""
    return shapes_of(unstack_layers(abstract_params(config)))


def causal_mask(length: int) -> np.ndarray:
    """Return float32[length, length], -inf above the diagonal, as in OpenAI's text tower."""
    return np.triu(np.full((length, length), -np.inf, np.float32), 1)
