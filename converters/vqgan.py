"""The image tokenizers of ruDALL-E and RUDOLPH: `vqgan.gumbelf8-sber.model.ckpt` and its kin.

Two layouts are published, both without a config, so sizes are read off the tensors:
plain, names as in taming's GumbelVQ, which `rudalle.get_vae` loads with strict=False, for training
left tensors of its own there; and the wavelet one, names of the whole `VQGanGumbelVAE`, loaded
strictly. So an export of the latter also writes the filters of its wavelet, and the used
post_quant_conv a second time in place of the one that the original holds and never uses.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from converters import torch_writer
from converters.clip_tables import require_kind
from converters.conversion import ForeignCheckpoint, ModelFolder, export_tensors
from converters.files import read_json
from converters.rules import Derived, Ignored, Rule, shapes_of
from converters.tensor_mapping import Shape
from converters.weights import Selection, Weights, open_weights
from rudolph_jax.config import VqganConfig
from rudolph_jax.vqgan import abstract_params
from rudolph_jax.wavelet import HIGH, LOW

SIGNATURE = "encoder.conv_in.weight"
FULL_PREFIX = "model."  # before every name of a whole VQGanGumbelVAE
CONFIG = "config.json"
FILE_NAMES = {False: "vqgan.gumbelf8-sber.model.ckpt", True: "vqgan.gumbelf8-sber-dwt.model.ckpt"}
CONFIG_SOURCE = "the shape of the other tensors"
NORM_GROUPS = 32  # a constant of taming's

# Our paths to the original's names, each line applied in turn.
NAMES = (
    (r"codebook", "quantize.embed.weight"),
    (r"code_head/", "quantize.proj/"),
    (r"encoder/level_(\d+)/", r"encoder.down.\1/"),
    (r"decoder/level_(\d+)/", r"decoder.up.\1/"),
    (r"/(down|up)sample_(\d+)/", r".\1.\2.\1sample.conv/"),
    (r"(\.\d+)/block_(\d+)/", r"\1.block.\2/"),
    (r"/attention_(\d+)/", r".attn.\1/"),
    (r"/middle/attention/", ".mid.attn_1/"),
    (r"/middle/", ".mid/"),
    (r"/(norm|conv)_([12])/", r"/\1\2/"),
    (r"/shortcut/", "/nin_shortcut/"),
    (r"/out_(kernel|bias)", r"/proj_out/\1"),
    (r"/qkv_(kernel|bias)", r"/qkv/\1"),
    (r"/(kernel|scale)", "/weight"),
    (r"/", "."),
)


def read(path: Path, selection: Selection | None = None) -> ForeignCheckpoint:
    """Read a checkpoint, and config.json next to it if present.

    path: the file, or a folder that holds no other checkpoint.
    """
    weights = open_weights(path, selection=selection)
    prefix = FULL_PREFIX if FULL_PREFIX + SIGNATURE in weights.tensors else ""
    require_kind(weights, "vqgan", prefix + SIGNATURE)
    config = _config(weights, prefix)
    file = weights.path.parent / CONFIG
    original = read_json(file) if file.exists() else None
    if original is not None:
        _check_config(original, config, str(file))
    return ForeignCheckpoint(
        model_kind="vqgan",
        config=config.to_dict(),
        weights=weights,
        rules=_rules(config, prefix),
        derived=_unused(config, prefix),
        settings=config,
        shapes=_shapes(config),
        config_source=CONFIG_SOURCE,
        sidecar_files=() if original is None else (file,),
        original=original or {},
    )


def export(model: ModelFolder, folder: Path) -> None:
    """Write the checkpoint {"state_dict": ...}, and config.json where the original had one."""
    config = VqganConfig.from_dict(model.config)
    if config.norm_groups != NORM_GROUPS:
        raise InputError(
            f"{model.folder}: its group norms have {config.norm_groups} groups; rudalle's always "
            f"have {NORM_GROUPS}, so it cannot be exported"
        )
    whole = config.wavelet if model.dtypes is None else FULL_PREFIX + SIGNATURE in model.dtypes
    prefix = FULL_PREFIX if whole else ""
    unused = _unused(config, prefix)
    tensors = export_tensors(model, _rules(config, prefix), unused, config, _shapes(config))
    if config.wavelet:
        for part in ("weight", "bias"):
            used = tensors[f"{prefix}decoder.post_quant_conv.{part}"]
            tensors[f"{prefix}post_quant_conv.{part}"] = used
    if model.original:
        text = json.dumps(model.original, ensure_ascii=False, indent=1)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    torch_writer.write(folder / FILE_NAMES[config.wavelet], tensors, under="state_dict")


def _rules(config: VqganConfig, prefix: str) -> tuple[Rule, ...]:
    return tuple(_rule(path, shape, config, prefix) for path, shape in _shapes(config).items())


def _rule(path: str, shape: Shape, config: VqganConfig, prefix: str) -> Rule:
    name = path
    for ours, theirs in NAMES:
        name = re.sub(ours, theirs, name)
    if config.wavelet and name.startswith(("decoder.", "post_quant_conv.")):
        name = "decoder." + name  # the wavelet decoder holds a plain one
    name = prefix + name
    if ".qkv." in name:
        sources = tuple(name.replace(".qkv.", f".{part}.") for part in "qkv")
        pattern = "c o i () () -> i c o" if path.endswith("kernel") else "c o -> c o"
        return Rule(sources, path, pattern)
    if path.endswith("kernel"):
        return Rule(name, path, "o i y x -> y x i o" if len(shape) == 4 else "o i () () -> i o")
    return Rule(name, path)


def _constant(value: np.ndarray, _: VqganConfig) -> np.ndarray:
    return value


def _unused(config: VqganConfig, prefix: str) -> tuple[Derived | Ignored, ...]:
    """Describe tensors of the original that the model does not need."""
    training = Ignored(
        f"{prefix}loss.*",
        "a part of the training loss (discriminator, perceptual network); coding uses none of it",
    )
    if not config.wavelet:
        return (training,)
    filters = (
        Derived(
            f"{prefix}decoder.idwt.{name}_{way}",
            "a filter of the Haar wavelet, a constant",
            functools.partial(_constant, value.reshape(shape)),
            export_dtype="float32",
        )
        for way, shape in (("col", (1, 1, 2, 1)), ("row", (1, 1, 1, 2)))
        for name, value in (("g0", LOW), ("g1", HIGH))
    )
    reason = "never used: the wavelet decoder has a post_quant_conv of its own"
    second = (Ignored(f"{prefix}post_quant_conv.{part}", reason) for part in ("weight", "bias"))
    return (training, *filters, *second)


def _config(weights: Weights, prefix: str) -> VqganConfig:
    """Infer sizes from shapes and names; contradictions are found when tensors are converted."""
    channels = _shape(weights, prefix + SIGNATURE, 4)[0]
    codebook_size, latent_channels = _shape(weights, prefix + "quantize.embed.weight", 2)
    levels = range(_count(weights, prefix + "encoder.down."))
    blocks = {_count(weights, f"{prefix}encoder.down.{level}.block.") for level in levels}
    if not channels or len(blocks) != 1 or 0 in blocks:
        raise InputError(
            f"{weights.path}: its encoder has {channels} channels, {len(levels)} levels and "
            f"{sorted(blocks)} blocks at a level; expected some, and one number of blocks"
        )
    multipliers = []
    for level in levels:
        name = f"{prefix}encoder.down.{level}.block.0.conv1.weight"
        width = _shape(weights, name, 4)[0]
        if width % channels:
            raise InputError(
                f"{weights.file_of(name)}: tensor {name!r} puts out {width} channels; expected a "
                f"multiple of {channels}, what {prefix + SIGNATURE!r} puts out"
            )
        multipliers.append(width // channels)
    try:
        return VqganConfig(
            channels=channels,
            channel_multipliers=tuple(multipliers),
            residual_blocks=blocks.pop(),
            attention_levels=tuple(
                level for level in levels if _count(weights, f"{prefix}encoder.down.{level}.attn.")
            ),
            latent_channels=latent_channels,
            codebook_size=codebook_size,
            wavelet=f"{prefix}decoder.decoder.conv_in.weight" in weights.tensors,
            norm_groups=NORM_GROUPS,
        )
    except InputError as error:
        raise InputError(f"{weights.path}: {error}") from error


def _shape(weights: Weights, name: str, rank: int) -> Shape:
    if name not in weights.tensors:
        raise InputError(
            f"{weights.path}: tensor {name!r} is missing; a VQGAN with a Gumbel quantiser has it"
        )
    shape, file = weights.tensors[name].shape, weights.file_of(name)
    if len(shape) != rank:
        raise InputError(f"{file}: tensor {name!r} has shape {list(shape)}; expected {rank} axes")
    return shape


def _count(weights: Weights, prefix: str) -> int:
    """Return the highest number after this prefix plus one. A gap is found as a missing tensor."""
    pattern = re.compile(re.escape(prefix) + r"([0-9]{1,2})\.")
    return max((1 + int(m[1]) for name in weights.tensors if (m := pattern.match(name))), default=0)


def _check_config(original: Mapping[str, Any], config: VqganConfig, where: str) -> None:
    """Raise InputError unless the original's config agrees with the tensors.

    Its form: {"model": {"params": {"embed_dim", "n_embed", "ddconfig": {...}, ...}, ...}, ...}.
    Keys that only training reads (kl_weight, lossconfig, dropout, ...) are not checked.
    """
    params = _object(_object(original, "model", where), "params", where)
    sizes = _object(params, "ddconfig", where)
    found = {key: params.get(key) for key in ("embed_dim", "n_embed")}
    named = ("z_channels", "ch", "ch_mult", "num_res_blocks", "in_channels", "out_ch")
    found |= {key: sizes.get(key) for key in (*named, "double_z", "resolution", "attn_resolutions")}
    if absent := [key for key, value in found.items() if value is None]:
        raise InputError(f"{where}: has no {', '.join(absent)}; a config of rudalle's VQGAN has")
    levels = range(len(config.channel_multipliers))
    resolutions, attention = found.pop("resolution"), found.pop("attn_resolutions")
    if type(resolutions) is not int or type(attention) is not list:
        raise InputError(f"{where}: resolution or attn_resolutions are not a number and a list")
    found["attn_resolutions"] = [level for level in levels if resolutions >> level in attention]
    expected = {
        "embed_dim": config.latent_channels,
        "n_embed": config.codebook_size,
        "z_channels": config.latent_channels,
        "ch": config.channels,
        "ch_mult": list(config.channel_multipliers),
        "num_res_blocks": config.residual_blocks,
        "in_channels": 3,
        "out_ch": 3,
        "double_z": False,
        "attn_resolutions": list(config.attention_levels),
    }
    if config.wavelet and found["out_ch"] == 12:  # rudalle sets it while it builds the decoder
        expected["out_ch"] = 12
    for key, value in expected.items():
        if found[key] != value:
            put = "puts attention at levels" if key == "attn_resolutions" else "is"
            raise InputError(f"{where}: {key} {put} {found[key]}; the tensors say {value}")


def _object(parent: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    if not isinstance(parent.get(key), Mapping):
        raise InputError(
            f"{where}: has no object {key!r}; a config of rudalle's VQGAN has; move the file away "
            "if it belongs to another model"
        )
    return parent[key]


@functools.cache
def _shapes(config: VqganConfig) -> Mapping[str, Shape]:
    return shapes_of(abstract_params(config))
