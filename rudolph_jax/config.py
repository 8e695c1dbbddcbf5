"""Sizes of RUDOLPH and of its image tokenizer: frozen plain data, and the table of presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from clip_jax.config import check_choice, config_from_dict
from clip_jax.config_fields import (
    FUNCTIONS,
    Background,
    Epsilon,
    Fraction,
    Layers,
    Rows,
    Size,
    Tokens,
    check_fields,
    plain_dict,
    short_repr,
)
from clip_jax.errors import InputError

MAX_LEVELS = 12  # of an image tokenizer; tokens of 2,048 x 2,048 pixels
MAX_LENGTH = 1 << 12  # of a sequence: each mask has the square of it
_Count = Annotated[int, Meta(ge=0, le=1 << 20)]  # of special tokens
_Multiplier = Annotated[int, Meta(ge=1, le=1 << 10)]
_Multipliers = Annotated[
    tuple[_Multiplier, ...],
    Meta(
        min_length=1,
        max_length=MAX_LEVELS,
        description=f"positive integers up to 1024, one for each of at most {MAX_LEVELS} levels",
    ),
]
_LevelNumbers = Annotated[
    tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=MAX_LEVELS, description="level numbers")
]
MASK_ORDERS = ("rudolph", "rudalle", "causal", "row", "column", "conv")


@dataclasses.dataclass(frozen=True)
class MaskType:
    """An own mask of the image, for `RudolphConfig.custom_mask`.

    name: by which `mask_order` names it. attends: (query, key, side) -> bool[N, N], whether the
    image token `query` attends to `key`, both int[N, N] in raster order, in an image of `side` by
    `side` tokens. Later tokens are masked whatever it returns, and each attends to itself.

        MaskType("dilated", lambda query, key, side: (query - key) % 2 == 0)
    """

    name: str
    attends: Callable[[np.ndarray, np.ndarray, int], np.ndarray]

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name in (*MASK_ORDERS, "last_conv"):
            raise InputError(
                f"MaskType: name is {self.name!r}; expected letters, digits and _, and none of "
                f"{', '.join((*MASK_ORDERS, 'last_conv'))}"
            )


@dataclasses.dataclass(frozen=True)
class RudolphConfig:
    """Architecture of a decoder over `[left text | image | right text]`.

    text_vocab_size, image_vocab_size: BPE pieces and codes of the image tokenizer, without the
        special tokens that follow each.
    kernel_size, last_kernel_size: sides of the convolution masks, of the last layer apart.
    mask_order: order of mask types over the layers, RUDOLPH's ("rudolph") or ruDALL-E's
        ("rudalle"), or the one type that all layers have (`masks.py`), as in no published model;
        or the name of `custom_mask`, which all layers have then.
    conv_edges: a convolution mask ends at the image's edge ("clamp") or continues at the other
        side ("wrap", ruDALL-E v2).
    bos_prefix: one more BOS before the left text (ruDALL-E v2); masks do not count it, so that
        their image begins one token early.
    sandwich_norm, pb_relax: CogView's stabilisers (Ding et al. 2021, section 2.4).
    activation: "gelu_tanh" (both spellings of the original's are this one) or the exact "gelu".
    embedding_gradient_scale: factor of the embeddings' gradient.
    custom_mask: a function, which is not saved: whoever loads the model brings it again.
    """

    left_text_length: Tokens
    image_tokens_per_side: Annotated[int, Meta(ge=1, le=1 << 6)]
    right_text_length: Annotated[int, Meta(ge=0, le=MAX_LENGTH)]
    text_vocab_size: Rows
    image_vocab_size: Rows
    width: Size
    layers: Layers
    heads: Size
    text_special_tokens: _Count = 0
    image_special_tokens: _Count = 0
    kernel_size: Tokens = 7
    last_kernel_size: Tokens = 9
    mask_order: str = "rudolph"
    conv_edges: str = "clamp"
    bos_prefix: bool = False
    sandwich_norm: bool = True
    pb_relax: bool = True
    activation: str = "gelu_tanh"
    attention_dropout: Fraction = 0.1
    output_dropout: Fraction = 0.1
    embedding_gradient_scale: float = 0.1
    layer_norm_epsilon: Epsilon = 1e-5
    custom_mask: MaskType | None = dataclasses.field(default=None, metadata=FUNCTIONS)

    def __post_init__(self) -> None:
        check_fields(self)
        length = self.left_text_length + self.image_tokens_per_side**2 + self.right_text_length
        if length > MAX_LENGTH:
            raise InputError(
                f"left_text_length is {self.left_text_length}, image_tokens_per_side "
                f"{self.image_tokens_per_side}, right_text_length {self.right_text_length}, a "
                f"sequence of {length} tokens; expected at most {MAX_LENGTH}"
            )
        if self.width % self.heads:
            raise InputError(f"width is {self.width}, not a multiple of heads ({self.heads})")
        if self.text_vocab_size < 4:
            raise InputError(
                f"text_vocab_size is {self.text_vocab_size}; expected room for PAD, UNK, BOS, EOS"
            )
        for name in ("kernel_size", "last_kernel_size"):
            if getattr(self, name) % 2 == 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected an odd number")
        self._check_mask()
        check_choice("conv_edges", self.conv_edges, ("clamp", "wrap"))
        check_choice("activation", self.activation, ("gelu_tanh", "gelu"))

    def _check_mask(self) -> None:
        own = self.custom_mask
        if own is not None and not isinstance(own, MaskType):
            raise InputError(f"custom_mask is {short_repr(own)}; expected a MaskType")
        names = (*MASK_ORDERS, own.name) if own else MASK_ORDERS
        if self.mask_order not in names:
            raise InputError(
                f"mask_order is {short_repr(self.mask_order)}; expected one of "
                f"{', '.join(names)}, or the name of an own mask, which load(..., custom_mask="
                "MaskType(...)) or an experiment file's get_extensions() brings"
            )

    @property
    def mlp_width(self) -> int:
        return 4 * self.width

    def to_dict(self) -> dict[str, Any]:
        return plain_dict(self)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], custom_mask: MaskType | None = None
    ) -> RudolphConfig:
        """The inverse of `to_dict`, through JSON too. Unknown or missing keys raise InputError.

        custom_mask: used where `mask_order` has its name.
        """
        if isinstance(data, Mapping) and custom_mask is not None:
            own = custom_mask if data.get("mask_order") == custom_mask.name else None
            data = {**data, "custom_mask": own}
        return config_from_dict(cls, data, "")


@dataclasses.dataclass(frozen=True)
class VqganConfig:
    """Architecture of an image tokenizer.

    channels, channel_multipliers: of the levels, from full resolution down; each level halves the
        sides but the last, so that four levels make tokens of 8x8 pixels.
    attention_levels: levels that have attention.
    latent_channels: of the quantizer's input. codebook_size: number of codes.
    wavelet: the decoder computes wavelet coefficients, and images twice as large.
    norm_groups: of every group norm; the published models have 32.
    background: the RGB colour under transparent pixels; None drops the alpha channel, as the
        published models do (`clip_jax.config.ImageConfig`).
    """

    channels: Size = 128
    channel_multipliers: _Multipliers = (1, 1, 2, 4)
    residual_blocks: Annotated[int, Meta(ge=1, le=64)] = 2
    attention_levels: _LevelNumbers = (3,)
    latent_channels: Size = 256
    codebook_size: Rows = 8192
    wavelet: bool = False
    norm_groups: Size = 32
    background: Background = None

    def __post_init__(self) -> None:
        check_fields(self)
        levels = len(self.channel_multipliers)
        if any(level not in range(levels) for level in self.attention_levels):
            raise InputError(
                f"attention_levels are {short_repr(self.attention_levels)}; expected numbers below "
                f"{levels}"
            )
        for multiplier in (1, *self.channel_multipliers):  # 1: what enters the first level
            if self.channels * multiplier % self.norm_groups:
                raise InputError(
                    f"a level has {self.channels * multiplier} channels; expected a multiple of "
                    f"norm_groups ({self.norm_groups})"
                )

    @property
    def patch_size(self) -> int:
        """Side of the square of pixels that one token stands for."""
        return 2 ** (len(self.channel_multipliers) - 1)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> VqganConfig:
        """The inverse of `to_dict`, through JSON too. Unknown or missing keys raise InputError."""
        return config_from_dict(cls, data, "")


_350M_V1 = RudolphConfig(
    left_text_length=64,
    image_tokens_per_side=16,
    right_text_length=64,
    text_vocab_size=16384,
    image_vocab_size=8192,
    width=1024,
    layers=24,
    heads=16,
)
_1_3B = RudolphConfig(
    left_text_length=128,
    image_tokens_per_side=32,
    right_text_length=128,
    text_vocab_size=16384,
    image_vocab_size=8192,
    width=2048,
    layers=24,
    heads=16,
    text_special_tokens=2048,
    image_special_tokens=64,
    kernel_size=9,
    last_kernel_size=11,
)
_2_7B = RudolphConfig(
    left_text_length=384,
    image_tokens_per_side=24,
    right_text_length=128,
    text_vocab_size=16384,
    image_vocab_size=8192,
    width=2560,
    layers=32,
    heads=32,
    text_special_tokens=1024,
    image_special_tokens=1024,
)
_MALEVICH = RudolphConfig(
    left_text_length=128,
    image_tokens_per_side=32,
    right_text_length=0,
    text_vocab_size=16384,
    image_vocab_size=8192,
    width=2048,
    layers=24,
    heads=16,
    kernel_size=11,
    last_kernel_size=11,
    mask_order="rudalle",
)

# The published models' own sizes: `rudolph.model.MODELS` and `rudalle.dalle.MODELS`.
PRESETS: dict[str, RudolphConfig] = {
    "350M_v1": _350M_V1,
    "350M": dataclasses.replace(_350M_V1, text_special_tokens=384, image_special_tokens=384),
    "1.3B": _1_3B,
    "2.7B": _2_7B,
    "2.7B_fbc2": _2_7B,
    "malevich": _MALEVICH,
    "malevich_v2": dataclasses.replace(_MALEVICH, conv_edges="wrap", bos_prefix=True),
    "kandinsky": dataclasses.replace(_MALEVICH, width=3840, layers=64, heads=60),
    "tiny": RudolphConfig(
        left_text_length=16,
        image_tokens_per_side=4,
        right_text_length=16,
        text_vocab_size=512,
        image_vocab_size=64,
        width=128,
        layers=4,
        heads=4,
        text_special_tokens=16,
        image_special_tokens=0,
        kernel_size=3,
        last_kernel_size=3,
    ),
}

# `gumbelf8-sber`, the tokenizer of every published model, plain and with the wavelet decoder.
VQGAN_PRESETS: dict[str, VqganConfig] = {
    "gumbelf8": VqganConfig(),
    "gumbelf8-dwt": VqganConfig(wavelet=True),
    # Of digits_vqgan.py: tokens of 4x4 pixels.
    "tiny": VqganConfig(
        channels=16,
        channel_multipliers=(1, 1, 2),
        residual_blocks=1,
        attention_levels=(),
        latent_channels=32,
        codebook_size=64,
        norm_groups=8,
    ),
}
