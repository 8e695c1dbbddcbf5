"""Checkpoints of RUDOLPH and ruDALL-E: reading and writing, common to both.

The config comes from config.json (the arguments of the original's constructor), from --preset, or
from the tensors: shapes give most sizes, mask buffers the kernels. Heads, special tokens and
PB-relax leave no trace, so the rest comes from the published model with exactly these sizes.
Sources that overlap must agree.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from clip_jax.config_fields import Layers, Rows, Size, check_mapping, check_value, short_repr
from clip_jax.errors import InputError
from clip_jax.tokenizer import FILE_NAME
from converters import rudolph_tables as tables
from converters import torch_writer, youtokentome
from converters.bpe_file import parse
from converters.clip_tables import require_kind
from converters.conversion import ForeignCheckpoint, ModelFolder, export_tensors
from converters.files import read_bytes, read_json
from converters.ruclip import IGNORED as HUB_KEYS
from converters.shape_check import check_header_shapes, with_foreign_field
from converters.weights import Selection, Weights, open_weights
from rudolph_jax.config import PRESETS, RudolphConfig
from rudolph_jax.layout import BOS, EOS, PAD, UNK
from rudolph_jax.leading_shapes import leading_shapes

CONFIG = "config.json"
WEIGHTS = (
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("model.safetensors", "model.safetensors.index.json"),
)
# Arguments without a default, the same for both constructors, and their types.
REQUIRED = {
    **dict.fromkeys(("num_layers", "vocab_size", "hidden_size", "num_attention_heads"), int),
    **dict.fromkeys(
        ("embedding_dropout_prob", "attention_dropout_prob", "output_dropout_prob"), float
    ),
}
TYPES: dict[str, Any] = {
    "num_layers": Layers,
    "hidden_size": Size,
    "num_attention_heads": Size,
    "image_vocab_size": Rows,
}
# Fields of our config -> theirs.
FIELDS = {
    "width": "hidden_size",
    "layers": "num_layers",
    "heads": "num_attention_heads",
    "image_tokens_per_side": "image_tokens_per_dim",
    "left_text_length": "l_text_seq_length or text_seq_length",
    "right_text_length": "r_text_seq_length",
    "text_vocab_size": "vocab_size",
    "attention_dropout": "attention_dropout_prob",
    "output_dropout": "output_dropout_prob",
}
EMBEDDING_DROPOUT = 0.1  # an argument that the originals never apply
ACTIVATIONS = ("gelu_jit", "gelu")  # two spellings of one formula, the tanh approximation
IGNORED = {"device", "is_bool_mask"}  # arguments that change nothing that is converted


@dataclasses.dataclass(frozen=True)
class ModelFamily:
    """Describe RUDOLPH or ruDALL-E.

    presets: names in `rudolph_jax.config.PRESETS`; `published` ones may be recognised by size.
    defaults: arguments that may be absent.
    ignored: further arguments that nothing reads.
    configure: all arguments -> fields of the config, besides those that both share.
    arguments: the inverse.
    mask_conflicts: fields of the config that the mask buffers contradict -> their values there.
    """

    kind: str
    names: tables.TensorNames
    presets: tuple[str, ...]
    published: tuple[str, ...]
    defaults: Mapping[str, Any]
    ignored: frozenset[str]
    configure: Callable[[Mapping[str, Any]], dict[str, Any]]
    arguments: Callable[[RudolphConfig], dict[str, Any]]
    mask_conflicts: Callable[[RudolphConfig, Weights], dict[str, Any]]


def read(
    family: ModelFamily, path: Path, preset: str | None, selection: Selection | None = None
) -> ForeignCheckpoint:
    """Read a checkpoint.

    path: a file, or a folder with weights, with config.json and bpe.model next to them if present.
    """
    named = path.is_dir() and any((path / name).exists() for name in WEIGHTS)
    weights = open_weights(path, WEIGHTS if named else (), selection)
    require_kind(weights, family.kind, family.names.left)
    config, config_source, original = _resolve_config(family, weights, preset)
    table = tables.rules(family.names, config)
    check_header_shapes(weights, table, leading_shapes(config), config_source, FIELDS)
    folder, files = weights.path.parent, {}
    sidecar_files = [folder / CONFIG] if original else []
    vocabulary = folder / youtokentome.ORIGINAL_NAME
    if vocabulary.is_file():
        sidecar_files.append(vocabulary)
        files[FILE_NAME] = _tokenizer(vocabulary, config, config_source)
    return ForeignCheckpoint(
        model_kind="rudolph",
        config=config.to_dict(),
        weights=weights,
        rules=table,
        derived=tables.derived(family.names),
        settings=config,
        shapes=tables.parameter_shapes(config),
        config_source=config_source,
        sidecar_files=sidecar_files,
        original=original,
        files=files,
    )


def export(family: ModelFamily, model: ModelFolder, folder: Path) -> None:
    """Write pytorch_model.bin, config.json and, where there is a vocabulary, bpe.model."""
    config, where = RudolphConfig.from_dict(model.config), str(model.folder)
    original = dict(model.original) or family.arguments(config)
    again = from_original(family, original, where)
    if again != config:
        raise InputError(
            f"{where}: {family.kind} cannot build this model: its arguments would make it "
            f"{_differences(again, config)}"
        )
    tensors = export_tensors(
        model,
        tables.rules(family.names, config),
        tables.derived(family.names),
        config,
        tables.parameter_shapes(config),
    )
    text = json.dumps(original, ensure_ascii=False, indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
    if model.file(FILE_NAME) is not None:
        youtokentome.export(model, folder)
    torch_writer.write(folder / WEIGHTS[0], tensors)


def from_original(family: ModelFamily, original: Mapping[str, Any], where: str) -> RudolphConfig:
    """Translate the constructor's arguments. where: their file in errors."""
    kinds = REQUIRED | {name: type(value) for name, value in family.defaults.items()}
    ignored = IGNORED | HUB_KEYS | family.ignored
    unknown = sorted(set(original) - set(kinds) - ignored)
    missing = [name for name in REQUIRED if name not in original]
    if unknown or missing:
        found = [*(f"unknown {key!r}" for key in unknown), *(f"missing {key!r}" for key in missing)]
        raise InputError(f"{where}: {', '.join(found)}; expected {', '.join(kinds)}")
    values = {**family.defaults, **original}
    for name, kind in kinds.items():
        fits = (int, float) if kind is float else (kind,)
        if type(values[name]) not in fits:
            raise InputError(
                f"{where}: {name} is {short_repr(values[name])}; expected {kind.__name__}"
            )
        check_value(f"{where}: {name}", values[name], kind)
    if values["mlp_activation"] not in ACTIVATIONS:
        raise InputError(
            f"{where}: mlp_activation is {short_repr(values['mlp_activation'])}; expected one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    check_mapping(values, TYPES, f"{where}: ")
    try:
        return RudolphConfig(
            width=values["hidden_size"],
            layers=values["num_layers"],
            heads=values["num_attention_heads"],
            image_tokens_per_side=values["image_tokens_per_dim"],
            image_vocab_size=values["image_vocab_size"],
            sandwich_norm=values["cogview_sandwich_layernorm"],
            pb_relax=values["cogview_pb_relax"],
            attention_dropout=values["attention_dropout_prob"],
            output_dropout=values["output_dropout_prob"],
            **family.configure(values),
        )
    except InputError as error:
        raise InputError(f"{where}: {with_foreign_field(error, FIELDS)}") from error


def shared_arguments(config: RudolphConfig) -> dict[str, Any]:
    """Return the arguments that both constructors take; the inverse to `from_original`."""
    return {
        "num_layers": config.layers,
        "hidden_size": config.width,
        "num_attention_heads": config.heads,
        "embedding_dropout_prob": EMBEDDING_DROPOUT,
        "output_dropout_prob": config.output_dropout,
        "attention_dropout_prob": config.attention_dropout,
        "image_tokens_per_dim": config.image_tokens_per_side,
        "cogview_sandwich_layernorm": config.sandwich_norm,
        "cogview_pb_relax": config.pb_relax,
        "vocab_size": config.text_vocab_size + config.left_text_length,
        "image_vocab_size": config.image_vocab_size,
    }


def infer(family: ModelFamily, weights: Weights) -> tuple[RudolphConfig, str]:
    """Infer the config of a checkpoint without one, and the preset that it comes from."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    sizes = tables.read_sizes(family.names, shapes, str(weights.path))
    said = {
        name: family.mask_conflicts(PRESETS[name], weights)
        for name in family.published
        if tables.Sizes.of(PRESETS[name]) == sizes
    }
    fitting: dict[RudolphConfig, str] = {}
    for name in sorted(said, key=lambda name: bool(said[name])):  # what fits as it is, first
        fitting.setdefault(dataclasses.replace(PRESETS[name], **said[name]), name)
    if len(fitting) == 1:
        ((config, name),) = fitting.items()
        return config, name
    ask = f"add {CONFIG} (the arguments of the original's constructor) or name one of --preset"
    if fitting:
        names = ", ".join(fitting.values())
        raise InputError(
            f"{weights.path}: without {CONFIG}, and its tensors fit {names} alike; {ask} {names}"
        )
    kernels = tables.mask_kernel_sizes(family.names, weights, sizes.segments())
    found = ", ".join([str(sizes), *(f"{name} {kernel}" for name, kernel in kernels.items())])
    raise InputError(
        f"{weights.path}: without {CONFIG}, and no published model has its sizes ({found}); heads "
        f"and special tokens leave no trace in tensors, so {ask} {', '.join(family.presets)}"
    )


def _resolve_config(
    family: ModelFamily, weights: Weights, preset: str | None
) -> tuple[RudolphConfig, str, dict[str, Any]]:
    """Return the config, its source for errors, and the original's arguments if known."""
    file, original = weights.path.parent / CONFIG, {}
    if file.is_file():
        original = read_json(file)
        config, config_source = from_original(family, original, str(file)), CONFIG
        if preset is not None and config != PRESETS[preset]:
            raise InputError(
                f"{file}: contradicts --preset {preset}: it says "
                f"{_differences(config, PRESETS[preset])}"
            )
    elif preset is not None:
        config, config_source = PRESETS[preset], f"--preset {preset}"
    else:
        config, name = infer(family, weights)
        return config, f"preset {name}, which has the sizes of this model,", {}
    if said := family.mask_conflicts(config, weights):
        differing = [f"{name} {value}, not {getattr(config, name)}" for name, value in said.items()]
        raise InputError(
            f"{weights.path}: its mask buffers contradict {config_source}: they say "
            f"{', '.join(differing)}"
        )
    return config, config_source, original


def _differences(config: RudolphConfig, other: RudolphConfig) -> str:
    pairs = zip(config.to_dict().items(), other.to_dict().values(), strict=True)
    return ", ".join(f"{name} {a}, not {b}" for (name, a), b in pairs if a != b)


def _tokenizer(file: Path, config: RudolphConfig, config_source: str) -> bytes:
    bpe = parse(read_bytes(file), str(file))
    if bpe.vocab_size > config.text_vocab_size:
        raise InputError(
            f"{file}: the vocabulary has {bpe.vocab_size} pieces; {config_source} leaves room for "
            f"{config.text_vocab_size}"
        )
    if bpe.specials != (UNK, PAD, BOS, EOS):
        raise InputError(
            f"{file}: UNK, PAD, BOS, EOS are {bpe.specials}; expected {(UNK, PAD, BOS, EOS)}"
        )
    return youtokentome.to_sentencepiece(bpe, str(file))
