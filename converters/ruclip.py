"""ruCLIP folders, as `ruclip.load` downloads them: pytorch_model.bin, config.json, bpe.model."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_jax.config import ClipConfig, ImageConfig, TextConfig, VisionConfig
from clip_jax.config_fields import Layers, Pixels, Rows, Size, Tokens, check_mapping
from clip_jax.errors import InputError
from clip_jax.leading_shapes import leading_shapes
from clip_jax.tokenizer import FILE_NAME
from converters import torch_writer, youtokentome
from converters.bpe_file import BpeModel, parse
from converters.channel_statistics import channel_values
from converters.clip_tables import OPENAI_RULES, parameter_shapes, require_kind
from converters.conversion import ForeignCheckpoint, ModelFolder, export_tensors
from converters.files import read_bytes, read_json
from converters.shape_check import check_header_shapes, with_foreign_field
from converters.signatures import OPENAI_SIGNATURE
from converters.weights import Selection, open_weights

WEIGHTS = ("pytorch_model.bin", "model.safetensors")
SIZES = (
    *("embed_dim", "image_resolution", "vision_layers", "vision_width", "vision_patch_size"),
    *("context_length", "vocab_size"),
    *("transformer_width", "transformer_heads", "transformer_layers"),
)
TYPES: dict[str, Any] = {
    **dict.fromkeys(("embed_dim", "vision_width", "transformer_width", "transformer_heads"), Size),
    **dict.fromkeys(("image_resolution", "vision_patch_size"), Pixels),
    **dict.fromkeys(("vision_layers", "transformer_layers"), Layers),
    "context_length": Tokens,
    "vocab_size": Rows,
}
# Fields of our config -> theirs.
FIELDS = {
    "vision.image_size": "image_resolution",
    "vision.layers": "vision_layers",
    **dict.fromkeys(("vision.width", "vision.mlp_width"), "vision_width"),
    "text.context_length": "context_length",
    "text.vocab_size": "vocab_size",
    **dict.fromkeys(("text.width", "text.mlp_width"), "transformer_width"),
    "text.layers": "transformer_layers",
}
STATISTICS = ("mean", "std")  # optional, of RuCLIPProcessor
# What model hubs add, and nothing reads.
IGNORED = {"architectures", "model_type", "torch_dtype", "transformers_version", "_name_or_path"}
# Fixed in RuCLIPProcessor, whatever the tokenizer says.
PAD, UNK, BOS, EOS = 0, 1, 2, 3


def read(folder: Path, selection: Selection | None = None) -> ForeignCheckpoint:
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with {WEIGHTS[0]}, config.json, bpe.model")
    weights = open_weights(folder, WEIGHTS, selection)
    require_kind(weights, "ruclip", OPENAI_SIGNATURE)
    file = folder / "config.json"
    original = read_json(file)
    config = from_original(original, str(file))
    vocabulary = folder / youtokentome.ORIGINAL_NAME
    bpe = parse(read_bytes(vocabulary), str(vocabulary))
    _check_vocabulary(bpe, config, str(vocabulary))
    check_header_shapes(weights, OPENAI_RULES, leading_shapes(config), file.name, FIELDS)
    return ForeignCheckpoint(
        model_kind="clip",
        config=config.to_dict(),
        weights=weights,
        rules=OPENAI_RULES,
        shapes=parameter_shapes(config),
        sidecar_files=(file, vocabulary),
        original=original,
        files={FILE_NAME: youtokentome.to_sentencepiece(bpe, str(vocabulary))},
    )


def export(model: ModelFolder, folder: Path) -> None:
    """Write pytorch_model.bin, config.json and bpe.model."""
    config = ClipConfig.from_dict(model.config)
    original = _to_original(config, str(model.folder))
    tensors = export_tensors(model, OPENAI_RULES, (), config, parameter_shapes(config))
    extras = {key: value for key, value in model.original.items() if key in IGNORED}
    text = json.dumps(original | extras, ensure_ascii=False, indent=1)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    youtokentome.export(model, folder)
    vocabulary = folder / youtokentome.ORIGINAL_NAME
    _check_vocabulary(parse(vocabulary.read_bytes(), FILE_NAME), config, str(model.folder))
    torch_writer.write(folder / WEIGHTS[0], tensors)


def from_original(original: Mapping[str, Any], where: str) -> ClipConfig:
    """Translate the arguments of `ruclip.CLIP`. where: their file in errors."""
    unknown = sorted(set(original) - set(SIZES) - set(STATISTICS) - IGNORED)
    missing = [key for key in SIZES if key not in original]
    if unknown or missing:
        found = [*(f"unknown {key!r}" for key in unknown), *(f"missing {key!r}" for key in missing)]
        raise InputError(f"{where}: {', '.join(found)}; expected {', '.join(SIZES)}, mean, std")
    check_mapping(original, TYPES, f"{where}: ")
    (embed, resolution, v_layers, v_width, patch, context, vocab, t_width, t_heads, t_layers) = (
        original[key] for key in SIZES
    )
    if v_width % 64:
        raise InputError(f"{where}: vision_width is {v_width}; expected a multiple of 64")
    # RuCLIPProcessor takes its own default for an absent, null or empty value.
    given = [key for key in STATISTICS if original.get(key)]
    statistics: dict[str, Any] = {
        key: channel_values(original[key], key, where, divides=key == "std") for key in given
    }
    try:
        return ClipConfig(
            VisionConfig(resolution, patch, v_width, v_layers, v_width // 64, 4 * v_width),
            TextConfig(vocab, context, t_width, t_layers, t_heads, 4 * t_width),
            embed_dim=embed,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
            image=ImageConfig(**statistics, background=None),
        )
    except InputError as error:
        raise InputError(f"{where}: {with_foreign_field(error, FIELDS)}") from error


def _to_original(config: ClipConfig, where: str) -> dict[str, Any]:
    """Return the arguments of `ruclip.CLIP`; InputError where ruclip cannot build this model.

    The background is left out: it is no part of the network, and ruclip drops the alpha channel.
    """
    config = dataclasses.replace(config, image=dataclasses.replace(config.image, background=None))
    vision, text = config.vision, config.text
    values = (
        *(config.embed_dim, vision.image_size, vision.layers, vision.width, vision.patch_size),
        *(text.context_length, text.vocab_size, text.width, text.heads, text.layers),
    )
    original: dict[str, Any] = dict(zip(SIZES, values, strict=True))
    original |= {key: list(getattr(config.image, key)) for key in STATISTICS}
    again = from_original(original, where).to_dict()
    differing = [
        f"{name} is {value}, ruclip makes it {again_value}"
        for (name, value), (_, again_value) in zip(
            _leaves(config.to_dict()), _leaves(again), strict=True
        )
        if value != again_value
    ]
    if differing:
        raise InputError(f"{where}: ruclip cannot build this model: {', '.join(differing)}")
    return original


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for key, value in tree.items():
        nested = isinstance(value, Mapping)
        found += _leaves(value, f"{prefix}{key}.") if nested else [(prefix + key, value)]
    return found


def _check_vocabulary(bpe: BpeModel, config: ClipConfig, where: str) -> None:
    if bpe.vocab_size > config.text.vocab_size:
        raise InputError(
            f"{where}: the vocabulary has {bpe.vocab_size} pieces; config.json's vocab_size is "
            f"{config.text.vocab_size}"
        )
    if bpe.specials != (UNK, PAD, BOS, EOS):
        raise InputError(
            f"{where}: UNK, PAD, BOS, EOS are {bpe.specials}; ruclip expects {(UNK, PAD, BOS, EOS)}"
        )
