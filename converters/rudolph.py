"""RUDOLPH, all five releases: pytorch_model.bin, with or without config.json and bpe.model.

    python -m converters rudolph SRC DST [--preset 350M]

The published files come without a config: then --preset names the model, or its sizes do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from converters import rudolph_checkpoint as checkpoint
from converters.conversion import ForeignCheckpoint, ModelFolder
from converters.rudolph_tables import RUDOLPH, mask_kernel_sizes, smallest_equivalent_kernel
from converters.weights import Selection, Weights
from rudolph_jax.config import PRESETS as CONFIGS
from rudolph_jax.config import RudolphConfig

PRESETS = tuple(name for name, config in CONFIGS.items() if config.mask_order == "rudolph")
KERNELS = ("kernel_size", "last_kernel_size")
# Arguments with the same name and meaning here.
SAME = ("text_special_tokens", "image_special_tokens", *KERNELS)


def read(
    path: Path, preset: str | None = None, selection: Selection | None = None
) -> ForeignCheckpoint:
    """Read a checkpoint.

    path: the file, or its folder.
    preset: one of PRESETS, for a checkpoint without a config.
    """
    return checkpoint.read(MODEL_FAMILY, path, preset, selection)


def export(model: ModelFolder, folder: Path) -> None:
    """Write pytorch_model.bin, config.json and, where there is a vocabulary, bpe.model."""
    checkpoint.export(MODEL_FAMILY, model, folder)


def _configure(values: Mapping[str, Any]) -> dict[str, Any]:
    left, right = values["l_text_seq_length"], values["r_text_seq_length"]
    if right < 1:
        raise InputError(f"r_text_seq_length is {right}; expected a positive integer")
    kernels = {name: 2 * (values[name] // 2) + 1 for name in KERNELS}  # an even one reaches as far
    return {
        "left_text_length": left,
        "right_text_length": right,
        "text_vocab_size": values["vocab_size"] - left,
        **{name: values[name] for name in SAME},
        **kernels,
    }


def _arguments(config: RudolphConfig) -> dict[str, Any]:
    return {
        **checkpoint.shared_arguments(config),
        "l_text_seq_length": config.left_text_length,
        "r_text_seq_length": config.right_text_length,
        **{name: getattr(config, name) for name in SAME},
    }


def _mask_conflicts(config: RudolphConfig, weights: Weights) -> dict[str, Any]:
    return {
        name: kernel
        for name, kernel in mask_kernel_sizes(RUDOLPH, weights, config).items()
        if kernel != smallest_equivalent_kernel(getattr(config, name), config)
    }


MODEL_FAMILY = checkpoint.ModelFamily(
    kind="rudolph",
    names=RUDOLPH,
    presets=PRESETS,
    published=tuple(name for name in PRESETS if name != "tiny"),
    defaults={
        "l_text_seq_length": 64,
        "r_text_seq_length": 64,
        "kernel_size": 7,
        "last_kernel_size": 9,
        "image_tokens_per_dim": 16,
        "image_vocab_size": 8192,
        "text_special_tokens": 0,
        "image_special_tokens": 0,
        "cogview_sandwich_layernorm": True,
        "cogview_pb_relax": True,
        "mlp_activation": checkpoint.ACTIVATIONS[0],
    },
    ignored=frozenset({"gradient_checkpointing"}),
    configure=_configure,
    arguments=_arguments,
    mask_conflicts=_mask_conflicts,
)
