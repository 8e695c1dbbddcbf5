"""Sizes of the contrastive models: frozen plain data, and the table of published presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from clip_jax.config_fields import (
    Background,
    Deviations,
    Epsilon,
    Id,
    Layers,
    Mean,
    Pixels,
    Rows,
    Size,
    Tokens,
    WideSize,
    check_fields,
    short_repr,
)
from clip_jax.errors import InputError

# Channel statistics of OpenAI's training images, kept by ruCLIP.
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
WHITE = (255, 255, 255)
MAX_PATCHES = 1 << 14  # attention has the square of them


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises InputError unless the value is one of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise InputError(f"{name} is {short_repr(value)}; expected one of {', '.join(allowed)}")


@dataclasses.dataclass(frozen=True)
class VisionConfig:
    """Sizes of the image tower, a Vision Transformer with a class token."""

    image_size: Pixels
    patch_size: Pixels
    width: Size
    layers: Layers
    heads: Size
    mlp_width: WideSize

    def __post_init__(self) -> None:
        check_fields(self, "vision.")
        if self.patches_per_side**2 > MAX_PATCHES:
            raise InputError(
                f"vision.image_size is {self.image_size}, {self.patches_per_side**2} patches of "
                f"vision.patch_size {self.patch_size}; expected at most {MAX_PATCHES}"
            )

    @property
    def patches_per_side(self) -> int:
        return self.image_size // self.patch_size

    @property
    def tokens(self) -> int:
        """Returns the sequence length: one class token and the patches."""
        return 1 + self.patches_per_side**2


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Sizes of the text tower, a causal transformer."""

    vocab_size: Rows
    context_length: Tokens
    width: Size
    layers: Layers
    heads: Size
    mlp_width: WideSize

    def __post_init__(self) -> None:
        check_fields(self, "text.")


@dataclasses.dataclass(frozen=True)
class ImageConfig:
    """Settings of image preprocessing (`image.py`).

    mean, std: channel statistics of pixels from 0 to 1.
    resample: "bilinear" or "bicubic".
    crop: "square_then_resize" (ruCLIP) or "resize_then_crop" (OpenAI).
    background: the RGB colour, 0 to 255, under transparent pixels; None drops the alpha channel,
        as the original packages and all published models do.
    """

    mean: Mean = OPENAI_MEAN
    std: Deviations = OPENAI_STD
    resample: str = "bilinear"
    crop: str = "square_then_resize"
    background: Background = WHITE

    def __post_init__(self) -> None:
        check_fields(self, "image.")
        check_choice("image.resample", self.resample, ("bilinear", "bicubic"))
        check_choice("image.crop", self.crop, ("square_then_resize", "resize_then_crop"))


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """Architecture and preprocessing of a model; how it is run is in `Compute`."""

    vision: VisionConfig
    text: TextConfig
    embed_dim: Size
    activation: str = "quick_gelu"  # or "gelu", "gelu_tanh"
    layer_norm_epsilon: Epsilon = 1e-5
    bos_id: Id = 2
    eos_id: Id = 3
    pad_id: Id = 0
    lowercase: bool = True
    image: ImageConfig = ImageConfig()
    logit_bias: bool = False  # learned, for the sigmoid loss

    def __post_init__(self) -> None:
        check_fields(self)
        for name, tower in (("vision", self.vision), ("text", self.text)):
            if tower.width % tower.heads:
                raise InputError(
                    f"{name}.width is {tower.width}, not a multiple of {name}.heads "
                    f"({tower.heads}); choose a width that the heads divide"
                )
        if self.vision.image_size % self.vision.patch_size:
            raise InputError(
                f"vision.image_size is {self.vision.image_size}, not a multiple of "
                f"vision.patch_size ({self.vision.patch_size})"
            )
        check_choice("activation", self.activation, ("quick_gelu", "gelu", "gelu_tanh"))
        for name in ("bos_id", "eos_id", "pad_id"):
            if not 0 <= getattr(self, name) < self.text.vocab_size:
                raise InputError(
                    f"{name} is {getattr(self, name)}; expected an id below "
                    f"text.vocab_size ({self.text.vocab_size})"
                )

    @property
    def prompt_length(self) -> int:
        """Returns the number of tokens that texts are truncated or padded to."""
        return self.text.context_length

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ClipConfig:
        """Reverses `to_dict`, through JSON too; unknown or missing keys raise InputError."""
        return _config_with_towers(cls, data)


@dataclasses.dataclass(frozen=True)
class RuclipSmallConfig:
    """Architecture of the first ruCLIP: CLIP's image tower and a GPT-2, each with a projection.

    visual_width: output size of the image tower, which a projection maps to embed_dim.
    prompt_length: number of tokens that texts are truncated or padded to, at most context_length.
    """

    vision: VisionConfig
    text: TextConfig
    visual_width: Size
    embed_dim: Size
    prompt_length: Tokens = 128
    layer_norm_epsilon: Epsilon = 1e-5
    bos_id: Id = 1
    eos_id: Id = 2
    pad_id: Id = 0
    lowercase: bool = False
    image: ImageConfig = ImageConfig(resample="bicubic", crop="resize_then_crop", background=None)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.prompt_length > self.text.context_length:
            raise InputError(
                f"prompt_length is {self.prompt_length}; expected at most text.context_length "
                f"({self.text.context_length})"
            )
        _ = self.vision_clip_config, self.text_clip_config  # which check the towers

    @property
    def vision_clip_config(self) -> ClipConfig:
        """Returns the config of the CLIP that has this image tower."""
        return self._clip("quick_gelu")

    @property
    def text_clip_config(self) -> ClipConfig:
        """Returns the config of a CLIP whose text tower is this GPT-2."""
        return self._clip("gelu_tanh")

    def _clip(self, activation: str) -> ClipConfig:
        return ClipConfig(
            self.vision,
            self.text,
            self.visual_width,
            activation,
            self.layer_norm_epsilon,
            self.bos_id,
            self.eos_id,
            self.pad_id,
            self.lowercase,
            self.image,
        )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RuclipSmallConfig:
        """Reverses `to_dict`, as ClipConfig's does."""
        return _config_with_towers(cls, data)


@dataclasses.dataclass(frozen=True)
class Compute:
    """Settings of how a model is run: they change speed, memory and rounding, not parameters.

    dtype: of activations and matrix products; parameters keep their own.
    remat: "none" keeps every activation for the backward pass, "block" only each block's input,
        "dots" also the results of matrix products, so that only cheap operations run twice.
    unroll: layers per iteration of the scan; the number of layers or more unrolls it whole,
        which is faster where the loop's overhead matters (small models, CPU).
    fused_attention: let a kernel compute attention on TPUs and GPUs (`clip_jax/fused`).
    """

    dtype: str = "float32"
    remat: str = "none"
    unroll: Size = 1
    fused_attention: bool = True

    def __post_init__(self) -> None:
        check_fields(self)
        check_choice("dtype", self.dtype, ("float32", "bfloat16", "float16"))
        check_choice("remat", self.remat, ("none", "block", "dots"))


def config_from_dict(cls: type, data: Mapping[str, Any], prefix: str) -> Any:
    """Builds a config dataclass from plain data; unknown or missing keys raise InputError.

    prefix: put before names in errors, such as "vision.".
    """
    if not isinstance(data, Mapping):
        raise InputError(f"config {prefix or 'root'} is {type(data).__name__}; expected an object")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(str(key)[:60] for key in set(data) - set(fields))[:8]
    required = {n for n, f in fields.items() if f.default is dataclasses.MISSING}
    missing = sorted(required - set(data))
    if unknown or missing:
        found = [f"unknown {prefix}{k}" for k in unknown]
        found += [f"missing {prefix}{k}" for k in missing]
        raise InputError(f"config: {', '.join(found)}; expected {', '.join(sorted(fields))}")
    # JSON has lists where the config has tuples.
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def _config_with_towers(cls: type, data: Mapping[str, Any]) -> Any:
    if not isinstance(data, Mapping):
        return config_from_dict(cls, data, "")  # which raises
    data = dict(data)
    if isinstance(data.get("image"), Mapping):
        # Folders that were saved before the field existed hold models that drop the alpha.
        data["image"] = {"background": None, **data["image"]}
    for key, part in (("vision", VisionConfig), ("text", TextConfig), ("image", ImageConfig)):
        if key in data:
            data[key] = config_from_dict(part, data[key], key + ".")
    return config_from_dict(cls, data, "")


def _vit(image_size: int, patch_size: int, width: int, layers: int) -> VisionConfig:
    return VisionConfig(image_size, patch_size, width, layers, width // 64, 4 * width)


def _text(width: int, vocab_size: int) -> TextConfig:
    return TextConfig(vocab_size, 77, width, 12, width // 64, 4 * width)


def _ruclip(vision: VisionConfig, embed_dim: int) -> ClipConfig:
    text = _text(embed_dim, vocab_size=49408)
    return ClipConfig(vision, text, embed_dim, image=ImageConfig(background=None))


def _openai(vision: VisionConfig, embed_dim: int) -> ClipConfig:
    return ClipConfig(
        vision,
        _text(embed_dim, vocab_size=49408),
        embed_dim,
        bos_id=49406,
        eos_id=49407,
        image=ImageConfig(resample="bicubic", crop="resize_then_crop", background=None),
    )


# Radford et al. 2021, table 20, and the six published ruCLIP models, which keep those sizes.
PRESETS: dict[str, ClipConfig] = {
    "ruclip-vit-base-patch32-224": _ruclip(_vit(224, 32, 768, 12), 512),
    "ruclip-vit-base-patch16-224": _ruclip(_vit(224, 16, 768, 12), 512),
    "ruclip-vit-large-patch14-224": _ruclip(_vit(224, 14, 1024, 24), 768),
    "ruclip-vit-base-patch32-384": _ruclip(_vit(384, 32, 768, 12), 512),
    "ruclip-vit-large-patch14-336": _ruclip(_vit(336, 14, 1024, 24), 768),
    "ruclip-vit-base-patch16-384": _ruclip(_vit(384, 16, 768, 12), 512),
    "clip-vit-base-patch32": _openai(_vit(224, 32, 768, 12), 512),
    "clip-vit-base-patch16": _openai(_vit(224, 16, 768, 12), 512),
    "clip-vit-large-patch14": _openai(_vit(224, 14, 1024, 24), 768),
    "clip-vit-large-patch14-336": _openai(_vit(336, 14, 1024, 24), 768),
    "tiny": ClipConfig(
        VisionConfig(image_size=32, patch_size=8, width=128, layers=3, heads=2, mlp_width=512),
        TextConfig(vocab_size=512, context_length=16, width=64, layers=2, heads=1, mlp_width=256),
        embed_dim=64,
        image=ImageConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    ),
}

# ViT-B/32 of OpenAI's CLIP and ruGPT-3 small, which uses 128 of its 2,048 positions.
RUCLIP_SMALL = RuclipSmallConfig(
    _vit(224, 32, 768, 12),
    TextConfig(50264, 2048, 768, 12, 12, 4 * 768),
    visual_width=512,
    embed_dim=1024,
)
