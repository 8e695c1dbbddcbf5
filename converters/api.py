"""Convert and export by kind: the registry of kinds and the two directions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from clip_jax import model_folder
from clip_jax.errors import InputError
from clip_jax.paths import as_path, local_path
from converters import (
    conversion,
    hf_clip,
    openai_clip,
    real_esrgan,
    ruclip,
    ruclip_small,
    rudalle,
    rudolph,
    vqgan,
    youtokentome,
)
from converters.conversion import DTYPES, Summary
from converters.weights import Selection

KINDS: dict[str, ModuleType] = {
    "ruclip": ruclip,
    "ruclip-small": ruclip_small,
    "openai-clip": openai_clip,
    "hf-clip": hf_clip,
    "rudolph": rudolph,
    "rudalle": rudalle,
    "vqgan": vqgan,
    "real-esrgan": real_esrgan,
    "youtokentome": youtokentome,
}
# What a model of ours becomes that was not converted: model kind -> kind of checkpoint.
DEFAULT_EXPORT_KINDS = {
    "clip": "ruclip",
    "ruclip-small": "ruclip-small",
    "rudolph": "rudolph",
    "tokenizer": "youtokentome",
    "upscaler": "real-esrgan",
    "vqgan": "vqgan",
}


def convert(
    kind: str,
    src: str | Path,
    dst: str | Path,
    dtype: str = "float32",
    preset: str | None = None,
    origin: Mapping[str, Any] | None = None,
    vocabulary: str | Path | None = None,
    activation: str | None = None,
    entry: str | None = None,
    prefix: str | None = None,
) -> Summary:
    """Convert a foreign checkpoint to the model folder `dst`, with report.json.

    kind: one of KINDS.
    dtype: of the parameters: float32, bfloat16 or float16.
    preset: for a kind with PRESETS, the published model; an error where config.json contradicts it.
    origin: source of the files, recorded in config.json.
    vocabulary: for a kind with VOCABULARY, a file or folder; None: the one next to the checkpoint.
    activation: for a kind with ACTIVATIONS, where the files do not name it.
    entry: name of one of several state dicts in a file (a model, its moving average).
    prefix: take only tensors whose names begin with it, and remove it.
    InputError for any wrong input; then nothing is left at `dst`.
    """
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype!r}; expected one of {', '.join(DTYPES)}")
    if preset is not None and preset not in presets(kind):
        known = ", ".join(presets(kind)) or f"none, for {kind} has no presets"
        raise InputError(f"preset is {preset!r}; expected one of {known}")
    if vocabulary is not None and not takes_vocabulary(kind):
        raise InputError(f"vocabulary is {vocabulary}; {kind} has its own next to the checkpoint")
    if activation is not None and activation not in activations(kind):
        known = ", ".join(activations(kind)) or f"none, for files of {kind} name it"
        raise InputError(f"activation is {activation!r}; expected one of {known}")
    if not has_tensors(kind) and (entry is not None or prefix is not None):
        raise InputError(f"entry is {entry!r}, prefix {prefix!r}; {kind} has no tensors")
    destination = model_folder.check_destination(dst)
    for path in (src, vocabulary):
        if path is not None and not local_path(path, "what is converted").exists():
            raise InputError(f"{path}: does not exist")
    options: dict[str, Any] = {}
    if presets(kind):
        options["preset"] = preset
    if takes_vocabulary(kind):
        options["vocabulary"] = Path(vocabulary) if vocabulary else None
    if activations(kind):
        options["activation"] = activation
    if has_tensors(kind):
        options["selection"] = Selection(entry, prefix)
    source = KINDS[kind].read(local_path(src, "what is converted"), **options)
    return conversion.convert(kind, source, destination, dtype, origin)


def presets(kind: str) -> tuple[str, ...]:
    """Return the presets of one of KINDS; most have none."""
    return getattr(KINDS[kind], "PRESETS", ())


def takes_vocabulary(kind: str) -> bool:
    """Return whether one of KINDS accepts a vocabulary by path."""
    return getattr(KINDS[kind], "VOCABULARY", False)


def activations(kind: str) -> tuple[str, ...]:
    """Return the activations that one of KINDS accepts; most kinds find it in their files."""
    return getattr(KINDS[kind], "ACTIVATIONS", ())


def has_tensors(kind: str) -> bool:
    """Return whether one of KINDS is a checkpoint; the other is a vocabulary."""
    return KINDS[kind] is not youtokentome


def export(src: str | Path, dst: str | Path) -> Summary:
    """Write the original's files of a model folder to the new folder `dst`.

    A converted model is exported to its own kind, each tensor in its dtype; one trained here to its
    kind in DEFAULT_EXPORT_KINDS. InputError for any wrong input; then nothing is left at `dst`.
    """
    destination = model_folder.check_destination(dst)
    model = conversion.open_model(as_path(src))
    kind = model.converted_from or DEFAULT_EXPORT_KINDS.get(model.kind)
    if kind == "rudolph" and model.config.get("mask_order") == "rudalle":
        kind = "rudalle"  # one of ours that began as a ruDALL-E
    if kind not in KINDS:
        raise InputError(f"{src}: a model of kind {kind or model.kind!r} has no export")
    with model_folder.atomic_folder(destination) as partial_folder:
        KINDS[kind].export(model, partial_folder)
    return conversion.export_summary(kind, model, destination)
