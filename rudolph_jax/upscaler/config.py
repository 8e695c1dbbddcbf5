"""Sizes of a super-resolution network: frozen plain data, and the table of presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from clip_jax.config import config_from_dict
from clip_jax.config_fields import Size, check_fields
from clip_jax.errors import InputError

SCALES = (1, 2, 4, 8)
TRUNK_SCALE = 4  # by which the network enlarges the features of its blocks, or twice that


@dataclasses.dataclass(frozen=True)
class UpscalerConfig:
    """Architecture of an RRDB network (residual in residual dense blocks).

    scale: by which the sides of an image grow. The network of scales 1 and 2 is that of 4 on
        images whose squares of 4x4 or 2x2 pixels became channels.
    features: channels between blocks. blocks: RRDBs. growth: channels that each of the first four
        convolutions of a dense block adds.
    """

    scale: Annotated[int, Meta(ge=1, le=8)] = 4
    features: Size = 64
    blocks: Annotated[int, Meta(ge=1, le=64)] = 23
    growth: Size = 32

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scale not in SCALES:
            known = ", ".join(map(str, SCALES))
            raise InputError(f"scale is {self.scale}; expected one of {known}")

    @property
    def unshuffle(self) -> int:
        """Side of the square of pixels that becomes channels; images' sides are multiples of it."""
        return max(TRUNK_SCALE // self.scale, 1)

    @property
    def receptive_radius(self) -> int:
        """Pixels of the input, in each direction, that a pixel of the output depends on.

        One for each 3x3 convolution before the first upsampling; those after it see less than two
        more. Rounded up to a multiple of `unshuffle`.
        """
        convolutions = 1 + 15 * self.blocks + 1  # conv_first, three times five a block, conv_body
        return self.unshuffle * (convolutions + 2)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> UpscalerConfig:
        """The inverse of `to_dict`, through JSON too. Unknown or missing keys raise InputError."""
        return config_from_dict(cls, data, "")


# `RealESRGAN_x2`, `_x4` and `_x8`, as ruDALL-E downloads them.
UPSCALER_PRESETS: dict[str, UpscalerConfig] = {
    "x2": UpscalerConfig(scale=2),
    "x4": UpscalerConfig(scale=4),
    "x8": UpscalerConfig(scale=8),
    "tiny": UpscalerConfig(scale=4, features=8, blocks=2, growth=4),
}
