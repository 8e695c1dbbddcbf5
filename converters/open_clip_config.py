"""open_clip_config.json: activation, sizes and image preparation of weights under OpenAI's names.

Keys and defaults are open_clip's (CLIPVisionCfg, CLIPTextCfg, PreprocessCfg). A null is an absent
key. What changes the model and has no counterpart here is refused, and so is an unknown key.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_jax.config import OPENAI_MEAN, OPENAI_STD, ClipConfig, ImageConfig
from clip_jax.config_fields import (
    Layers,
    Pixels,
    Rows,
    Size,
    Tokens,
    WideSize,
    check_mapping,
    check_value,
)
from clip_jax.errors import InputError
from converters.channel_statistics import channel_values, json_repr
from converters.files import read_json, without_nulls

NAME = "open_clip_config.json"
# Sizes of the towers -> their defaults.
VISION = {"image_size": 224, "patch_size": 16, "width": 768, "layers": 12, "head_width": 64}
TEXT = {"vocab_size": 49408, "context_length": 77, "width": 512, "heads": 8, "layers": 12}
TYPES: dict[str, Any] = {
    **dict.fromkeys(("image_size", "patch_size"), Pixels),
    **dict.fromkeys(("width", "head_width", "heads"), Size),
    "layers": Layers,
    "vocab_size": Rows,
    "context_length": Tokens,
}
MLP_RATIO = 4.0
# Keys that must have these values, which are their defaults.
FIXED = {
    "ls_init_value": None,
    "final_ln_after_pool": False,
    "output_tokens": False,
    "block_type": None,
    "qk_norm": False,
    "scaled_cosine_attn": False,
    "scale_heads": False,
    "scale_attn_inner": False,
    "scale_attn": False,
    "scale_fc": False,
}
FIXED_VISION = FIXED | {
    "attentional_pool": False,
    "no_ln_pre": False,
    "pos_embed_type": "learnable",
    "pool_type": "tok",
    "input_patchnorm": False,
    "global_average_pool": False,
    "timm_model_name": None,
}
FIXED_TEXT = FIXED | {
    "embed_cls": False,
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_bias": False,
    "proj_type": "linear",
    "hf_model_name": None,
    "hf_tokenizer_name": None,
    "tokenizer_kwargs": None,
}
FIXED_MODEL = {
    "custom_text": False,
    "init_logit_bias": None,
    "nonscalar_logit_scale": False,
    "multimodal_cfg": None,
}
# Keys that only training, or only what FIXED excludes, reads.
IGNORED = {
    *("init_logit_scale", "cast_dtype", "patch_dropout", "attn_pooler_queries"),
    *("attn_pooler_heads", "pad_id"),
}
IGNORED_PREFIXES = ("timm_", "hf_")
FIXED_PREPROCESS = {"mode": "RGB", "resize_mode": "shortest"}
INTERPOLATIONS = ("bicubic", "bilinear")


@dataclasses.dataclass(frozen=True)
class OpenClipConfig:
    """Hold the config in our terms.

    vision, text: sizes by key, with heads and mlp_width.
    original: content of the file.
    """

    path: Path
    activation: str
    layer_norm_epsilon: float
    embed_dim: int
    vision: Mapping[str, int]
    text: Mapping[str, int]
    image: ImageConfig
    original: Mapping[str, Any]


def next_to(weights: Path) -> OpenClipConfig | None:
    """Return the config in the folder of a checkpoint, if there is one."""
    path = weights.parent / NAME
    return from_original(read_json(path), path) if path.is_file() else None


def from_original(original: Mapping[str, Any], path: Path) -> OpenClipConfig:
    """Translate the file's content. InputError for what has no counterpart."""
    where, given = str(path), without_nulls(original)
    model = dict(_object(given, "model_cfg", where))
    vision_cfg = _object(model, "vision_cfg", f"{where}: model_cfg")
    text_cfg = _object(model, "text_cfg", f"{where}: model_cfg")
    _check(
        {key: value for key, value in model.items() if key not in ("vision_cfg", "text_cfg")},
        FIXED_MODEL,
        {"embed_dim", "quick_gelu"},
        f"{where}: model_cfg",
    )
    vision = _tower(vision_cfg, VISION, FIXED_VISION, f"{where}: vision_cfg")
    text = _tower(text_cfg, TEXT, FIXED_TEXT, f"{where}: text_cfg")
    if vision["width"] % vision["head_width"]:
        raise InputError(
            f"{where}: vision_cfg: width {vision['width']} is no multiple of head_width "
            f"{vision['head_width']}"
        )
    vision["heads"] = vision["width"] // vision.pop("head_width")
    quick = model.get("quick_gelu", False)
    if type(quick) is not bool:
        raise InputError(f"{where}: quick_gelu is {json_repr(quick)}; expected true or false")
    approximate = _shared("act_kwargs", "approximate", "none", (vision_cfg, text_cfg), where)
    epsilon = _shared("norm_kwargs", "eps", 1e-5, (vision_cfg, text_cfg), where)
    allowed = ["none"] if quick else ["none", "tanh"]
    if approximate not in allowed:
        raise InputError(
            f"{where}: act_kwargs.approximate is {json_repr(approximate)}; expected 'none' or, "
            "without "
            "quick_gelu, 'tanh'"
        )
    if type(epsilon) is not float or not 0 < epsilon < 1:
        raise InputError(f"{where}: norm_kwargs.eps is {json_repr(epsilon)}; expected 0 to 1")
    embed_dim: Any = model.get("embed_dim")
    check_value(f"{where}: model_cfg: embed_dim", embed_dim, Size)
    exact = {"none": "gelu", "tanh": "gelu_tanh"}[approximate]
    preprocess = given.get("preprocess_cfg", {})
    return OpenClipConfig(
        path,
        activation="quick_gelu" if quick else exact,
        layer_norm_epsilon=epsilon,
        embed_dim=embed_dim,
        vision=vision,
        text=text,
        image=_image(preprocess, f"{where}: preprocess_cfg"),
        original=original,
    )


def to_original(config: ClipConfig) -> dict[str, Any]:
    """Return the file's content for a config; the inverse of `from_original`."""
    vision, text = config.vision, config.text
    kwargs: dict[str, Any] = {}
    if config.activation == "gelu_tanh":
        kwargs["act_kwargs"] = {"approximate": "tanh"}
    if config.layer_norm_epsilon != 1e-5:
        kwargs["norm_kwargs"] = {"eps": config.layer_norm_epsilon}
    vision_cfg = {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "width": vision.width,
        "layers": vision.layers,
        "head_width": vision.width // vision.heads,
        **_ratio(vision.mlp_width, vision.width),
    }
    text_cfg = {
        "context_length": text.context_length,
        "vocab_size": text.vocab_size,
        "width": text.width,
        "heads": text.heads,
        "layers": text.layers,
        **_ratio(text.mlp_width, text.width),
    }
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": config.activation == "quick_gelu",
            "vision_cfg": vision_cfg | kwargs,
            "text_cfg": text_cfg | kwargs,
        },
        "preprocess_cfg": {
            "mean": list(config.image.mean),
            "std": list(config.image.std),
            "interpolation": config.image.resample,
            "resize_mode": "shortest",
        },
    }


def _ratio(mlp_width: int, width: int) -> dict[str, float]:
    """Return mlp_ratio such that `int(width * ratio)` is mlp_width."""
    ratio = mlp_width / width
    while int(width * ratio) < mlp_width:
        ratio += 1e-9
    return {} if ratio == MLP_RATIO else {"mlp_ratio": ratio}


def _tower(
    cfg: Mapping[str, Any], sizes: Mapping[str, int], fixed: Mapping[str, Any], where: str
) -> dict[str, int]:
    _check(cfg, fixed, {*sizes, "mlp_ratio", "act_kwargs", "norm_kwargs"}, where)
    found = {key: cfg.get(key, default) for key, default in sizes.items()}
    check_mapping(found, TYPES, f"{where}: ")
    ratio = cfg.get("mlp_ratio", MLP_RATIO)
    if type(ratio) not in (int, float) or not 0 < ratio < 1000:
        raise InputError(f"{where}: mlp_ratio is {json_repr(ratio)}; expected a positive number")
    check_value(f"{where}: width times mlp_ratio", int(found["width"] * ratio), WideSize)
    return found | {"mlp_width": int(found["width"] * ratio)}


def _check(cfg: Mapping[str, Any], fixed: Mapping[str, Any], read: set[str], where: str) -> None:
    for key, value in cfg.items():
        if key in read or key in IGNORED:
            continue
        if key in fixed:
            if type(value) is not type(fixed[key]) or value != fixed[key]:
                raise InputError(
                    f"{where}: {key} is {json_repr(value)}; a model of ours has none but "
                    f"{json_repr(fixed[key])}"
                )
        elif not key.startswith(IGNORED_PREFIXES):
            raise InputError(f"{where}: {json_repr(key)} is unknown, so it may change the model")


def _shared(name: str, key: str, default: Any, towers: tuple[Any, ...], where: str) -> Any:
    """Return the value of a keyword on which both towers must agree."""
    values = []
    for cfg in towers:
        kwargs = cfg.get(name, {})
        if not isinstance(kwargs, Mapping) or set(kwargs) - {key}:
            raise InputError(f"{where}: {name} is {json_repr(kwargs)}; expected at most {key!r}")
        values.append(kwargs.get(key, default))
    if values[0] != values[1]:
        raise InputError(
            f"{where}: {name} differ, {json_repr(values[0])} in vision_cfg and "
            f"{json_repr(values[1])} in "
            "text_cfg; one model here has one"
        )
    return values[0]


def _image(cfg: Any, where: str) -> ImageConfig:
    if not isinstance(cfg, Mapping):
        raise InputError(f"{where}: is {json_repr(cfg)}; expected an object")
    _check(cfg, FIXED_PREPROCESS, {"mean", "std", "interpolation", "size", "fill_color"}, where)
    interpolation = cfg.get("interpolation", "bicubic")
    if interpolation not in INTERPOLATIONS:
        raise InputError(
            f"{where}: interpolation is {json_repr(interpolation)}; expected "
            f"{' or '.join(INTERPOLATIONS)}"
        )
    return ImageConfig(
        channel_values(cfg.get("mean", list(OPENAI_MEAN)), "mean", where),
        channel_values(cfg.get("std", list(OPENAI_STD)), "std", where, divides=True),
        interpolation,
        "resize_then_crop",
        background=None,
    )


def _object(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    if not isinstance(parent.get(key), Mapping):
        raise InputError(f"{where}: {key} is {json_repr(parent.get(key))}; expected an object")
    return parent[key]
