"""transformers' CLIPModel folders: config.json, weights, and where present the processor's files.

Defaults that a config.json leaves out are transformers' own (CLIPTextConfig, CLIPVisionConfig,
CLIPImageProcessor); keys that no forward pass reads are ignored, for PreTrainedConfig writes many.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax import byte_bpe
from clip_jax.config import (
    OPENAI_MEAN,
    OPENAI_STD,
    ClipConfig,
    ImageConfig,
    TextConfig,
    VisionConfig,
)
from clip_jax.config_fields import (
    Epsilon,
    Id,
    Layers,
    Pixels,
    Rows,
    Size,
    Tokens,
    WideSize,
    check_mapping,
    check_value,
    short_repr,
)
from clip_jax.errors import InputError
from clip_jax.leading_shapes import leading_shapes
from converters import byte_vocabulary, safetensors_file
from converters.channel_statistics import channel_values, json_repr
from converters.clip_tables import parameter_shapes, require_kind
from converters.conversion import ForeignCheckpoint, ModelFolder, export_tensors
from converters.files import read_bytes, read_json, without_nulls
from converters.rules import Derived, Rule
from converters.shape_check import check_header_shapes, with_foreign_field
from converters.weights import Selection, open_weights

SIGNATURE = "vision_model.embeddings.patch_embedding.weight"
WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
# Carried over into the model folder and back.
COPIED_FILES = (
    *(PREPROCESSOR, PROCESSOR),
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
)
TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
VISION_DEFAULTS = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
# The types of both towers' settings.
TYPES: dict[str, Any] = {
    "vocab_size": Rows,
    "hidden_size": Size,
    "intermediate_size": WideSize,
    "num_hidden_layers": Layers,
    "num_attention_heads": Size,
    "max_position_embeddings": Tokens,
    "hidden_act": str,
    "layer_norm_eps": Epsilon,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), Id),
    "num_channels": Size,
    **dict.fromkeys(("image_size", "patch_size"), Pixels),
}
# Fields of our config -> theirs.
FIELDS = {
    **{
        f"{tower}.{ours}": f"{tower}_config.{theirs}"
        for tower in ("vision", "text")
        for ours, theirs in (
            ("width", "hidden_size"),
            ("layers", "num_hidden_layers"),
            ("heads", "num_attention_heads"),
            ("mlp_width", "intermediate_size"),
        )
    },
    "vision.image_size": "vision_config.image_size",
    "text.vocab_size": "text_config.vocab_size",
    "text.context_length": "text_config.max_position_embeddings",
    "embed_dim": "projection_dim",
}
ImageSettings = tuple[str, Mapping[str, Any]]  # the file's name, CLIPImageProcessor's arguments
HIDDEN_ACTS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}  # ours by their names
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # PIL.Image.Resampling
LEGACY_EOS = 2  # stands for "the highest id of each text" (transformers PR 24773)


def _tower(source: str, target: str) -> tuple[Rule, ...]:
    qkv = [f"{source}.self_attn.{part}_proj" for part in "qkv"]
    return (
        Rule(f"{source}.layer_norm1.weight", f"{target}/attention_norm/scale"),
        Rule(f"{source}.layer_norm1.bias", f"{target}/attention_norm/bias"),
        Rule(
            tuple(f"{name}.weight" for name in qkv),
            f"{target}/attention/qkv_kernel",
            "c (h k) d -> d c h k",
        ),
        Rule(
            tuple(f"{name}.bias" for name in qkv),
            f"{target}/attention/qkv_bias",
            "c (h k) -> c h k",
        ),
        Rule(
            f"{source}.self_attn.out_proj.weight",
            f"{target}/attention/out_kernel",
            "d (h k) -> h k d",
        ),
        Rule(f"{source}.self_attn.out_proj.bias", f"{target}/attention/out_bias"),
        Rule(f"{source}.layer_norm2.weight", f"{target}/mlp_norm/scale"),
        Rule(f"{source}.layer_norm2.bias", f"{target}/mlp_norm/bias"),
        Rule(f"{source}.mlp.fc1.weight", f"{target}/mlp/in_kernel", "f d -> d f"),
        Rule(f"{source}.mlp.fc1.bias", f"{target}/mlp/in_bias"),
        Rule(f"{source}.mlp.fc2.weight", f"{target}/mlp/out_kernel", "d f -> f d"),
        Rule(f"{source}.mlp.fc2.bias", f"{target}/mlp/out_bias"),
    )


_V, _T = "vision_model.embeddings", "text_model.embeddings"
RULES: tuple[Rule, ...] = (
    Rule(SIGNATURE, "visual/patch_embedding/kernel", "d rgb y x -> y x rgb d"),
    Rule(f"{_V}.class_embedding", "visual/class_embedding"),
    Rule(f"{_V}.position_embedding.weight", "visual/position_embedding"),
    Rule("vision_model.pre_layrnorm.weight", "visual/pre_norm/scale"),  # transformers' spelling
    Rule("vision_model.pre_layrnorm.bias", "visual/pre_norm/bias"),
    *_tower("vision_model.encoder.layers.{i}", "visual/layers/{i}"),
    Rule("vision_model.post_layernorm.weight", "visual/post_norm/scale"),
    Rule("vision_model.post_layernorm.bias", "visual/post_norm/bias"),
    Rule("visual_projection.weight", "visual/projection", "e d -> d e"),
    Rule(f"{_T}.token_embedding.weight", "text/token_embedding"),
    Rule(f"{_T}.position_embedding.weight", "text/position_embedding"),
    *_tower("text_model.encoder.layers.{i}", "text/layers/{i}"),
    Rule("text_model.final_layer_norm.weight", "text/final_norm/scale"),
    Rule("text_model.final_layer_norm.bias", "text/final_norm/bias"),
    Rule("text_projection.weight", "text/projection", "e d -> d e"),
    Rule("logit_scale", "logit_scale"),
)
DERIVED = (
    Derived(
        f"{_V}.position_ids",
        "a buffer that counts the image's tokens",
        lambda config: np.arange(config.vision.tokens)[None],
    ),
    Derived(
        f"{_T}.position_ids",
        "a buffer that counts the text's tokens",
        lambda config: np.arange(config.text.context_length)[None],
    ),
)


def read(folder: Path, selection: Selection | None = None) -> ForeignCheckpoint:
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with config.json and {WEIGHTS[0]}")
    weights = open_weights(folder, WEIGHTS, selection)
    require_kind(weights, "hf-clip", SIGNATURE)
    file = folder / "config.json"
    original = read_json(file)
    copied = [folder / name for name in COPIED_FILES if (folder / name).is_file()]
    config = from_original(original, _image_processor(folder), str(file))
    check_header_shapes(weights, RULES, leading_shapes(config), file.name, FIELDS)
    if byte_bpe.exists_in(folder):
        byte_vocabulary.check(folder, config)
    return ForeignCheckpoint(
        model_kind="clip",
        config=config.to_dict(),
        weights=weights,
        rules=RULES,
        derived=DERIVED,
        settings=config,
        shapes=parameter_shapes(config),
        sidecar_files=(file, *copied),
        original=original,
        files={path.name: read_bytes(path) for path in copied},
    )


def export(model: ModelFolder, folder: Path) -> None:
    """Write model.safetensors, config.json and the copied files."""
    config = ClipConfig.from_dict(model.config)
    where = f"{model.folder}/config.json"
    again = from_original(model.original, _image_processor(model.folder), where)
    if again != config:
        raise InputError(f"{where}: the config is no longer the converted one; cannot be exported")
    tensors = export_tensors(model, RULES, DERIVED, config, parameter_shapes(config))
    text = json.dumps(model.original, ensure_ascii=False, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    for name in COPIED_FILES:
        if (content := model.file(name)) is not None:
            (folder / name).write_bytes(content)
    safetensors_file.write(folder / WEIGHTS[0], tensors)


def from_original(
    original: Mapping[str, Any], image: ImageSettings | None, where: str
) -> ClipConfig:
    """Translate CLIPConfig to ClipConfig. where: its name in errors."""
    original = without_nulls(original)
    if original.get("model_type", "clip") != "clip":
        raise InputError(
            f"{where}: model_type is {json_repr(original['model_type'])}; expected 'clip'"
        )
    text = _tower_config(original, "text_config", TEXT_DEFAULTS, where)
    vision = _tower_config(original, "vision_config", VISION_DEFAULTS, where)
    for key in ("hidden_act", "layer_norm_eps"):
        if text[key] != vision[key]:
            raise InputError(
                f"{where}: {key} is {text[key]!r} in text_config, {vision[key]!r} in "
                "vision_config; one model here has one"
            )
    if vision["num_channels"] != 3:
        raise InputError(f"{where}: num_channels is {vision['num_channels']!r}; expected 3")
    embed_dim = original.get("projection_dim", 512)
    _check_type("projection_dim", embed_dim, 512, where)
    check_value(f"{where}: projection_dim", embed_dim, Size)
    image_config = _image(image, vision["image_size"])
    bos, eos = text["bos_token_id"], text["eos_token_id"]
    if eos == LEGACY_EOS:
        bos, eos = text["vocab_size"] - 2, text["vocab_size"] - 1
    try:
        return ClipConfig(
            VisionConfig(
                *(vision["image_size"], vision["patch_size"], vision["hidden_size"]),
                *(vision["num_hidden_layers"], vision["num_attention_heads"]),
                vision["intermediate_size"],
            ),
            TextConfig(
                *(text["vocab_size"], text["max_position_embeddings"], text["hidden_size"]),
                *(text["num_hidden_layers"], text["num_attention_heads"]),
                text["intermediate_size"],
            ),
            embed_dim,
            activation=HIDDEN_ACTS.get(text["hidden_act"], text["hidden_act"]),
            layer_norm_epsilon=text["layer_norm_eps"],
            bos_id=bos,
            eos_id=eos,
            pad_id=text["pad_token_id"],
            image=image_config,
        )
    except InputError as error:
        raise InputError(f"{where}: {with_foreign_field(error, FIELDS)}") from error


def _tower_config(
    original: Mapping[str, Any], name: str, defaults: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """Return a tower's config. The older NAME_dict replaces NAME and its defaults, as there."""
    part, older = original.get(name, {}), original.get(f"{name}_dict")
    for found in (part, {} if older is None else older):
        if not isinstance(found, Mapping):
            raise InputError(f"{where}: {name} is a {type(found).__name__}; expected an object")
    settings = {**defaults, **part} if older is None else {**defaults, **older}
    for key, default in defaults.items():
        _check_type(f"{name}.{key}", settings[key], default, where)
    check_mapping(settings, {key: TYPES[key] for key in defaults}, f"{where}: {name}.")
    return {key: settings[key] for key in defaults}


def _check_type(key: str, value: Any, default: Any, where: str) -> None:
    if type(value) is not type(default):
        expected = type(default).__name__
        raise InputError(
            f"{where}: {key} is {short_repr(value)}; expected {expected}, as {default!r}"
        )


def _image_processor(folder: Path) -> ImageSettings | None:
    """Read the image processor's settings.

    They are in preprocessor_config.json or, since transformers 5, in processor_config.json. A null
    is an absent key.
    """
    if (folder / PREPROCESSOR).is_file():
        return f"{folder}/{PREPROCESSOR}", without_nulls(read_json(folder / PREPROCESSOR))
    if (folder / PROCESSOR).is_file():
        settings = without_nulls(read_json(folder / PROCESSOR)).get("image_processor")
        if isinstance(settings, Mapping):
            return f"{folder}/{PROCESSOR}", settings
        if settings is not None:
            raise InputError(
                f"{folder}/{PROCESSOR}: image_processor is {json_repr(settings)}; expected an "
                "object"
            )
    return None


def _image(image: ImageSettings | None, image_size: int) -> ImageConfig:
    where, given = image or ("", {})
    for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"):
        if given.get(step, True) is not True:
            raise InputError(f"{where}: {step} is {json_repr(given[step])}; expected true")
    edge, sides = _edge(given, image_size), _crop(given, image_size)
    if (edge, *sides) != (image_size,) * 3:
        raise InputError(
            f"{where}: size is {json_repr(edge)}, crop_size {json_repr(list(sides))}; expected the "
            f"shortest edge and the centre crop at image_size {image_size}"
        )
    resample = given.get("resample", 3)
    if type(resample) is not int or resample not in RESAMPLING:
        names = ", ".join(f"{number} ({name})" for number, name in RESAMPLING.items())
        raise InputError(f"{where}: resample is {json_repr(resample)}; expected one of {names}")
    factor = given.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or not math.isclose(factor, 1 / 255, rel_tol=1e-5):
        raise InputError(f"{where}: rescale_factor is {json_repr(factor)}; expected 1/255")
    mean, std = given.get("image_mean", list(OPENAI_MEAN)), given.get("image_std", list(OPENAI_STD))
    return ImageConfig(
        channel_values(mean, "image_mean", where),
        channel_values(std, "image_std", where, divides=True),
        RESAMPLING[resample],
        "resize_then_crop",
        background=None,
    )


def _edge(given: Mapping[str, Any], image_size: int) -> Any:
    """Return the shortest edge from `size`: a number, or an object that holds it."""
    size = given.get("size", image_size)
    if not isinstance(size, Mapping):
        return size
    return size.get("shortest_edge", size) if size else image_size


def _crop(given: Mapping[str, Any], image_size: int) -> tuple[Any, Any]:
    """Return height and width from `crop_size`: a number for both, or an object that holds them."""
    crop = given.get("crop_size", image_size)
    if not isinstance(crop, Mapping):
        return crop, crop
    return (crop.get("height"), crop.get("width")) if crop else (image_size, image_size)
