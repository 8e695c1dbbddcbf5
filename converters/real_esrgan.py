"""Super-resolution networks of Real-ESRGAN: `RealESRGAN_x2.pth`, `_x4`, `_x8` and their kin.

Published without a config, so sizes are read off the tensors: the scale follows from the channels
of the first convolution (12: scale 2, 48: scale 1, 3: scale 4, or 8 with a third upsampling).
Files hold their tensors bare, or under `params` or `params_ema`; where both are there, `--entry`
names one. Letters in patterns: i, o channels in and out, y x the kernel's sides.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from clip_jax.errors import InputError
from converters import torch_writer
from converters.clip_tables import require_kind
from converters.conversion import ForeignCheckpoint, ModelFolder, export_tensors
from converters.rules import Rule, shapes_of
from converters.tensor_mapping import Shape
from converters.weights import Selection, Weights, open_weights
from rudolph_jax.upscaler.config import TRUNK_SCALE, UpscalerConfig
from rudolph_jax.upscaler.rrdb import abstract_params, upsamplings

SIGNATURE = "body.0.rdb1.conv1.weight"
ENTRY = "params"  # of the state dict in an export, where ruDALL-E looks first
CONFIG_SOURCE = "the shape of the other tensors"
BLOCK_NUMBER = re.compile(r"body\.([0-9]{1,3})\.")


def read(path: Path, selection: Selection | None = None) -> ForeignCheckpoint:
    """Read a checkpoint. path: the file, or a folder that holds no other checkpoint."""
    weights = open_weights(path, selection=selection)
    require_kind(weights, "real-esrgan", SIGNATURE)
    config = _config(weights)
    return ForeignCheckpoint(
        model_kind="upscaler",
        config=config.to_dict(),
        weights=weights,
        rules=_rules(config),
        settings=config,
        shapes=_shapes(config),
        config_source=CONFIG_SOURCE,
    )


def export(model: ModelFolder, folder: Path) -> None:
    """Write the checkpoint {"params": ...}."""
    config = UpscalerConfig.from_dict(model.config)
    tensors = export_tensors(model, _rules(config), (), config, _shapes(config))
    torch_writer.write(folder / f"RealESRGAN_x{config.scale}.pth", tensors, under=ENTRY)


def _convolution(source: str, target: str) -> tuple[Rule, Rule]:
    return (
        Rule(f"{source}.weight", f"{target}/kernel", "o i y x -> y x i o"),
        Rule(f"{source}.bias", f"{target}/bias"),
    )


@functools.cache
def _rules(config: UpscalerConfig) -> tuple[Rule, ...]:
    """Return the table, in the order of the original's tensors."""
    return (
        *_convolution("conv_first", "conv_first"),
        *(
            rule
            for dense in range(1, 4)
            for conv in range(1, 6)
            for rule in _convolution(
                f"body.{{i}}.rdb{dense}.conv{conv}", f"block_{{i}}/dense_{dense}/conv_{conv}"
            )
        ),
        *_convolution("conv_body", "conv_body"),
        *(
            rule
            for number in range(1, upsamplings(config) + 1)
            for rule in _convolution(f"conv_up{number}", f"conv_up_{number}")
        ),
        *_convolution("conv_hr", "conv_hr"),
        *_convolution("conv_last", "conv_last"),
    )


def _config(weights: Weights) -> UpscalerConfig:
    """Infer sizes from shapes and names; contradictions are found when tensors are converted."""
    first, grown = _shape(weights, "conv_first.weight"), _shape(weights, SIGNATURE)
    has_third = "conv_up3.weight" in weights.tensors
    scales = {3 * (TRUNK_SCALE // scale) ** 2: scale for scale in (1, 2, 4)}
    if first[1] not in scales or (has_third and first[1] != 3):
        third = " and has a third upsampling" if has_third else ""
        raise InputError(
            f"{weights.file_of('conv_first.weight')}: its first convolution takes {first[1]} "
            f"channels{third}; expected 3 (scale 4, or 8 with a third upsampling), 12 (scale 2) "
            "or 48 (scale 1)"
        )
    # A gap between blocks is found as a missing tensor.
    blocks = 1 + max(int(m[1]) for name in weights.tensors if (m := BLOCK_NUMBER.match(name)))
    try:
        return UpscalerConfig(
            scale=8 if has_third else scales[first[1]],
            features=first[0],
            blocks=blocks,
            growth=grown[0],
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error


def _shape(weights: Weights, name: str) -> Shape:
    if name not in weights.tensors:
        raise InputError(f"{weights.path}: tensor {name!r} is missing; a Real-ESRGAN has it")
    shape, file = weights.tensors[name].shape, weights.file_of(name)
    if len(shape) != 4:
        raise InputError(f"{file}: tensor {name!r} has shape {list(shape)}; expected 4 axes")
    return shape


@functools.cache
def _shapes(config: UpscalerConfig) -> Mapping[str, Shape]:
    return shapes_of(abstract_params(config))
