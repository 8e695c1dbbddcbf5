"""ruCLIP Small, the first ruCLIP: ViT-B32-small.pt and, for texts, ruGPT-3 small's vocabulary.

The checkpoint comes without a config: sizes come from tensor shapes, and heads have size 64. A
config.json next to it may say otherwise, see `_read_sizes`. The vocabulary is vocab.json with
merges.txt of `rugpt3small_based_on_gpt2`: next to the checkpoint, or in a folder given by name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.byte_bpe import FILES
from clip_jax.config import RUCLIP_SMALL, RuclipSmallConfig, TextConfig
from clip_jax.config_fields import Id, Rows, check_value, short_repr
from clip_jax.errors import InputError
from clip_jax.layers import unstack_layers
from clip_jax.model import abstract_params
from clip_jax.ruclip_small import RuclipSmall
from converters import byte_vocabulary, torch_writer
from converters.clip_shapes import (
    CONFIG_SOURCE,
    head_count,
    infer_vision_config,
    layer_count,
    tensor_shape,
)
from converters.clip_tables import OPENAI_RULES, require_kind
from converters.conversion import ForeignCheckpoint, ModelFolder, export_tensors
from converters.files import read_json, without_nulls
from converters.rules import Derived, Rule, Shape, shapes_of
from converters.weights import Selection, Weights, open_weights

VOCABULARY = True
WEIGHTS = "ViT-B32-small.pt"
IMAGE_PREFIX, TEXT_PREFIX = "visual_encoder.model.", "text_encoder.model."
SIGNATURE = f"{IMAGE_PREFIX}conv1.weight"
TOKEN_EMBEDDING = f"{TEXT_PREFIX}wte.weight"


def _projection(source: str, target: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{source}.linear1.weight", f"{target}/in_kernel", "e i -> i e"),
        Rule(f"{source}.linear2.weight", f"{target}/out_kernel", "f e -> e f"),
        Rule(f"{source}.layer_norm.weight", f"{target}/norm/scale"),
        Rule(f"{source}.layer_norm.bias", f"{target}/norm/bias"),
    )


# GPT-2 keeps its kernels as they multiply, input first.
_H, _LAYER = f"{TEXT_PREFIX}h.{{i}}", "text/layers/{i}"
RULES: tuple[Rule, ...] = (
    *(
        Rule(IMAGE_PREFIX + str(rule.source).removeprefix("visual."), rule.target, rule.pattern)
        for rule in OPENAI_RULES
        if rule.target.startswith("visual/")
    ),
    Rule(TOKEN_EMBEDDING, "text/token_embedding"),
    Rule(f"{TEXT_PREFIX}wpe.weight", "text/position_embedding"),
    Rule(f"{_H}.ln_1.weight", f"{_LAYER}/attention_norm/scale"),
    Rule(f"{_H}.ln_1.bias", f"{_LAYER}/attention_norm/bias"),
    Rule(f"{_H}.attn.c_attn.weight", f"{_LAYER}/attention/qkv_kernel", "d (c h k) -> d c h k"),
    Rule(f"{_H}.attn.c_attn.bias", f"{_LAYER}/attention/qkv_bias", "(c h k) -> c h k"),
    Rule(f"{_H}.attn.c_proj.weight", f"{_LAYER}/attention/out_kernel", "(h k) d -> h k d"),
    Rule(f"{_H}.attn.c_proj.bias", f"{_LAYER}/attention/out_bias"),
    Rule(f"{_H}.ln_2.weight", f"{_LAYER}/mlp_norm/scale"),
    Rule(f"{_H}.ln_2.bias", f"{_LAYER}/mlp_norm/bias"),
    Rule(f"{_H}.mlp.c_fc.weight", f"{_LAYER}/mlp/in_kernel"),
    Rule(f"{_H}.mlp.c_fc.bias", f"{_LAYER}/mlp/in_bias"),
    Rule(f"{_H}.mlp.c_proj.weight", f"{_LAYER}/mlp/out_kernel"),
    Rule(f"{_H}.mlp.c_proj.bias", f"{_LAYER}/mlp/out_bias"),
    Rule(f"{TEXT_PREFIX}ln_f.weight", "text/final_norm/scale"),
    Rule(f"{TEXT_PREFIX}ln_f.bias", "text/final_norm/bias"),
    *_projection("visual_encoder.projection", "visual_projection"),
    *_projection("text_encoder.projection", "text_projection"),
    Rule("logit_scale", "logit_scale"),
)
# Buffers that GPT2Model saved until transformers 4.31.
DERIVED = (
    Derived(
        f"{_H}.attn.bias",
        "the causal mask",
        lambda config: np.tri(config.text.context_length, dtype=bool)[None, None],
    ),
    Derived(
        f"{_H}.attn.masked_bias",
        "what the mask puts in",
        lambda config: np.array(-1e4, np.float32),
    ),
)


def read(
    path: Path, vocabulary: Path | None = None, selection: Selection | None = None
) -> ForeignCheckpoint:
    """Read a checkpoint.

    path: the file, or a folder with WEIGHTS or no other checkpoint.
    vocabulary: a folder.
    """
    own = path / WEIGHTS
    weights = open_weights(own if own.is_file() else path, selection=selection)
    require_kind(weights, "ruclip-small", SIGNATURE)
    file = weights.path.parent / "config.json"
    original = read_json(file) if file.is_file() else {}
    config = _config(weights, original, str(file))
    vocabulary = vocabulary or byte_vocabulary.next_to(weights.path)
    files, sidecar_files = byte_vocabulary.read(vocabulary, config)
    return ForeignCheckpoint(
        model_kind="ruclip-small",
        config=config.to_dict(),
        weights=weights,
        rules=RULES,
        derived=DERIVED,
        settings=config,
        shapes=parameter_shapes(config),
        config_source=CONFIG_SOURCE,
        sidecar_files=(*([file] if original else []), *sidecar_files),
        original=original,
        files=files,
    )


def export(model: ModelFolder, folder: Path) -> None:
    """Write ViT-B32-small.pt, the vocabulary's files and config.json if there was one."""
    config = RuclipSmallConfig.from_dict(model.config)
    tensors = export_tensors(model, RULES, DERIVED, config, parameter_shapes(config))
    torch_writer.write(folder / WEIGHTS, tensors)
    original = model.original or ({} if model.converted_from else _settings(config))
    if original:
        text = json.dumps(original, ensure_ascii=False, indent=1)
        (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for name in FILES:
        if (content := model.file(name)) is not None:
            (folder / name).write_bytes(content)


@functools.cache
def parameter_shapes(config: RuclipSmallConfig) -> Mapping[str, Shape]:
    """Map path to shape for every parameter, with layers separate."""
    return shapes_of(unstack_layers(abstract_params(config, RuclipSmall)))


def _config(weights: Weights, original: Mapping[str, Any], where: str) -> RuclipSmallConfig:
    """Infer the config; InputError where config.json contradicts the tensors."""
    given = _read_sizes(original, where)
    vision = infer_vision_config(weights, IMAGE_PREFIX, given.get("vision.heads"))
    _, visual_width = tensor_shape(weights, f"{IMAGE_PREFIX}proj", 2)
    vocab_size, width = tensor_shape(weights, TOKEN_EMBEDDING, 2)
    positions, _ = tensor_shape(weights, f"{TEXT_PREFIX}wpe.weight", 2)
    embed_dim, _ = tensor_shape(weights, "text_encoder.projection.linear1.weight", 2)
    heads = given.get("text.n_head") or head_count(weights, TOKEN_EMBEDDING, width)
    layers = layer_count(weights, f"{TEXT_PREFIX}h.")
    try:
        config = RuclipSmallConfig(
            vision,
            TextConfig(vocab_size, positions, width, layers, heads, 4 * width),
            visual_width,
            embed_dim,
            prompt_length=min(positions, RUCLIP_SMALL.prompt_length),
            eos_id=given.get("eos_token_id", RUCLIP_SMALL.eos_id),
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error
    read_off = _flat(_settings(config))
    for key, value in given.items():
        if value != read_off[key]:
            raise InputError(f"{where}: {key} is {value}; the tensors say {read_off[key]}")
    return config


def _settings(config: RuclipSmallConfig) -> dict[str, Any]:
    """Return the content of a config.json for this model."""
    vision, text = config.vision, config.text
    return {
        "vision": {
            "image_resolution": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.width,
            "layers": vision.layers,
            "heads": vision.heads,
            "output_dim": config.visual_width,
        },
        "text": {
            "vocab_size": text.vocab_size,
            "n_positions": text.context_length,
            "n_embd": text.width,
            "n_layer": text.layers,
            "n_head": text.heads,
        },
        "projection_dim": config.embed_dim,
        "eos_token_id": config.eos_id,
    }


def _read_sizes(original: Mapping[str, Any], where: str) -> dict[str, int]:
    """Read keys such as "text.n_head" of config.json, in `_settings`' form or ruGPT-3's GPT2Config.

    The latter's ids are ignored: they are the English GPT-2's.
    """
    known, original = _flat(_settings(RUCLIP_SMALL)), without_nulls(original)
    if original.get("model_type") == "gpt2":
        inner = original.get("n_inner")
        found = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5}
        for key, value in found.items():
            if original.get(key, value) != value:
                raise InputError(
                    f"{where}: {key} is {short_repr(original[key])}; expected {value!r}"
                )
        if inner is not None and not _is_four_times(inner, original.get("n_embd", 0)):
            raise InputError(f"{where}: n_inner is {short_repr(inner)}; expected four times n_embd")
        given = {k: original[k[5:]] for k in known if k.startswith("text.") and k[5:] in original}
    else:
        given = _flat(original)
    for key, value in given.items():
        if key not in known:
            raise InputError(f"{where}: unknown {key!r}; expected some of {', '.join(known)}")
        check_value(f"{where}: {key}", value, Id if key == "eos_token_id" else Rows)
    return given


def _is_four_times(inner: Any, width: Any) -> bool:
    return type(width) is int and type(inner) is int and inner == 4 * width


def _flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten {"text": {"n_head": 12}} to {"text.n_head": 12}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        flat |= {f"{key}.{k}": v for k, v in value.items()} if nested else {key: value}
    return flat
