"""ruDALL-E (Malevich, Emojich, Surrealist, Kandinsky): RUDOLPH's blocks without right text.

    python -m converters rudalle pytorch_model_v3.bin DST [--preset malevich]

The published files come without a config. Versions v2 (Malevich_v2, Emojich: convolution masks
that go on at the image's other side, one more BOS before the text) and v3 (Malevich,
Surrealist_XL, Kandinsky) have the same sizes; the buffer conv_mask, config.json's hf_version or
--preset tells which.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from converters import rudolph_checkpoint as checkpoint
from converters.conversion import ForeignCheckpoint, ModelFolder
from converters.rudolph_tables import RUDALLE
from converters.weights import Selection, Weights
from rudolph_jax.config import PRESETS as CONFIGS
from rudolph_jax.config import RudolphConfig
from rudolph_jax.masks import mask

PRESETS = tuple(name for name, config in CONFIGS.items() if config.mask_order == "rudalle")
VERSIONS: dict[str, dict[str, Any]] = {
    "v2": {"conv_edges": "wrap", "bos_prefix": True},
    "v3": {"conv_edges": "clamp", "bos_prefix": False},
}
KERNEL = 11  # a constant of the package


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
    version = values["hf_version"]
    if version not in VERSIONS:
        raise InputError(f"hf_version is {version!r}; expected one of {', '.join(VERSIONS)}")
    return {
        "left_text_length": values["text_seq_length"],
        "right_text_length": 0,
        "text_vocab_size": values["vocab_size"] - values["text_seq_length"],
        "kernel_size": KERNEL,
        "last_kernel_size": KERNEL,
        "mask_order": "rudalle",
        **VERSIONS[version],
    }


def _arguments(config: RudolphConfig) -> dict[str, Any]:
    return {
        **checkpoint.shared_arguments(config),
        "text_seq_length": config.left_text_length,
        "hf_version": "v2" if config.conv_edges == "wrap" else "v3",
    }


def _mask_conflicts(config: RudolphConfig, weights: Weights) -> dict[str, Any]:
    found = weights.tensors.get("transformer.conv_mask")
    if found is None or _is_mask(found, config):
        return {}
    for version in VERSIONS.values():
        if _is_mask(found, dataclasses.replace(config, **version)):
            return version
    return {}  # no convolution mask at all; its check says so


def _is_mask(found: np.ndarray, config: RudolphConfig) -> bool:
    return np.array_equal(found != 0, mask(config, "last_conv"))


MODEL_FAMILY = checkpoint.ModelFamily(
    kind="rudalle",
    names=RUDALLE,
    presets=PRESETS,
    published=PRESETS,
    defaults={
        "text_seq_length": 128,
        "image_tokens_per_dim": 32,
        "image_vocab_size": 16384,
        "cogview_sandwich_layernorm": False,
        "cogview_pb_relax": False,
        "mlp_activation": checkpoint.ACTIVATIONS[0],
        "hf_version": "v3",
    },
    ignored=frozenset({"loss_img_weight"}),
    configure=_configure,
    arguments=_arguments,
    mask_conflicts=_mask_conflicts,
)
