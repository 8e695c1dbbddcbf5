"""Defines what RUDOLPH's evaluations measure: the decoder and its image tokenizer."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from pathlib import Path
from typing import Any

import rudolph_jax
from clip_jax import Compute, model_folder
from clip_jax.content_hash import content_hash
from clip_jax.errors import InputError
from clip_jax.paths import as_path
from rudolph_jax.config import PRESETS
from rudolph_jax.pretrained import PretrainedRudolph


@dataclasses.dataclass(frozen=True)
class RudolphModel:
    """name: for tables. batch_size: rows that the model takes at once."""

    name: str
    rudolph: PretrainedRudolph
    converted_from: str | None = None
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch size is {self.batch_size}; expected at least 1")

    @cached_property
    def content_hash(self) -> str:
        """Hash the decoder with its vocabulary, and the image tokenizer."""
        rudolph, vqgan = self.rudolph, self.rudolph.vqgan
        files = rudolph.tokenizer.files
        decoder = content_hash(rudolph.config.to_dict(), rudolph.params, files)
        return content_hash(vqgan.config.to_dict(), vqgan.params, {"decoder": decoder.encode()})

    def metadata(self) -> dict[str, Any]:
        """Describes the model in a result, for JSON."""
        config = self.rudolph.config
        return {
            "system": self.name,
            "preset": next((n for n, preset in PRESETS.items() if preset == config), None),
            "converted_from": self.converted_from,
            "sha256": self.content_hash,
            "dtype": self.rudolph.compute.dtype,
        }


def open_rudolph(
    folder: str | Path,
    vqgan: str | Path,
    *,
    compute: Compute = Compute(),
    weights: str = "stored",
    name: str = "",
    batch_size: int = 64,
) -> RudolphModel:
    """Loads a model folder and its image tokenizer's; wrong ones raise InputError.

    weights: see `rudolph_jax.load`. name: "" is the folder's.
    """
    rudolph = rudolph_jax.load(folder, vqgan, compute, weights)
    converted_from = model_folder.read_config(folder)["provenance"].get("converted_from")
    name = name or as_path(folder).resolve().name
    return RudolphModel(name, rudolph, converted_from, batch_size)
