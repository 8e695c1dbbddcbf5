"""Conversion of a foreign checkpoint to a model folder and back, common to all kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax import model_folder
from clip_jax.errors import InputError
from clip_jax.input_files import MAX_VOCABULARY_BYTES, read_limited
from clip_jax.leading_shapes import Leading, leading_shapes
from clip_jax.pretrained import KINDS as CLIP_KINDS
from converters import rules
from converters.files import read_json, sha256
from converters.rules import Derived, Ignored, Rule
from converters.tensor_mapping import Shape
from converters.torch_unpickler import STORAGES, safe_repr
from converters.weights import Weights
from rudolph_jax.config import RudolphConfig, VqganConfig
from rudolph_jax.leading_shapes import leading_shapes as rudolph_leading_shapes
from rudolph_jax.leading_shapes import upscaler_leading_shapes, vqgan_leading_shapes
from rudolph_jax.upscaler.config import UpscalerConfig

DTYPES = ("float32", "bfloat16", "float16")
SOURCE_DTYPES = {str(dtype) for dtype in STORAGES.values()}


@dataclass(frozen=True)
class ForeignCheckpoint:
    """Describe a foreign checkpoint whose tensors are not converted yet.

    model_kind, config: of the model folder.
    settings: config as the derived tensors take it.
    config_source: where the shapes come from, for error messages.
    sidecar_files: files read besides the weights.
    original: the foreign config, stored for export.
    files: copied into the model folder.
    notes: further entries of the report: decisions and their sources.
    """

    model_kind: str
    config: Mapping[str, Any]
    weights: Weights | None = None
    rules: Sequence[Rule] = ()
    derived: Sequence[Derived | Ignored] = ()
    settings: Any = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    config_source: str = "config.json"
    sidecar_files: Sequence[Path] = ()
    original: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelFolder:
    """Hold a model folder that is exported.

    params: path -> array.
    dtypes: source tensor -> dtype, for all that can be written again; None for a model that was
        never converted.
    """

    folder: Path
    kind: str
    converted_from: str | None
    config: Mapping[str, Any]
    original: Mapping[str, Any]
    params: Mapping[str, np.ndarray]
    dtypes: Mapping[str, str] | None

    def file(self, name: str) -> bytes | None:
        path = self.folder / name
        return read_limited(path, MAX_VOCABULARY_BYTES) if path.is_file() else None


@dataclass(frozen=True)
class Summary:
    """Summarize a conversion or an export. notes: rules that were applied."""

    kind: str
    tensors: int
    parameters: int
    size: int
    destination: Path
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        size = f"{self.size / 1e6:,.1f} MB" if self.size >= 1e5 else f"{self.size:,} bytes"
        counts = f"{self.tensors} tensors, {self.parameters:,} parameters, "
        notes = f" ({'; '.join(self.notes)})" if self.notes else ""
        return f"{self.kind}: {counts if self.tensors else ''}{size} -> {self.destination}{notes}"


def convert(
    kind: str,
    source: ForeignCheckpoint,
    destination: Path,
    dtype: str,
    origin: Mapping[str, Any] | None = None,
) -> Summary:
    """Write the model folder of a checkpoint. origin: source of its files, if known."""
    params: dict[str, Any] | None = None
    tensors: list[dict[str, Any]] = []
    read = [*(source.weights.sources if source.weights else ()), *source.sidecar_files]
    if source.weights is not None:
        mappings = rules.resolve_rules(source.rules, source.shapes)
        params, tensors = rules.convert(
            mappings, source.derived, source.settings, source.weights, dtype, source.config_source
        )
    count = sum(math.prod(shape) for shape in source.shapes.values())
    with model_folder.atomic_folder(destination) as partial_folder, ThreadPoolExecutor(1) as thread:
        fingerprints = thread.map(_file_digest, read)  # while the parameters are written
        arrays = model_folder.write_params(partial_folder, params)
        files = list(fingerprints)
        model_folder.write_metadata(
            partial_folder,
            arrays,
            kind=source.model_kind,
            config=source.config,
            files=source.files,
            provenance={
                "converted_from": kind,
                "files": files,
                "original": dict(source.original),
                **({"origin": dict(origin)} if origin else {}),
            },
            report={
                "kind": kind,
                "files": files,
                "parameters": count,
                "config_from": source.config_source if source.weights is not None else None,
                "dtype": dtype if params is not None else None,
                **source.notes,
                "names": _naming_report(source.weights),
                "left_out": _left_out(source.weights),
                "tensors": tensors,
            },
        )
    return _summary(kind, len(tensors), count, destination, _remarks(source))


def open_model(folder: Path) -> ModelFolder:
    """Read a model folder for export, with the record of its conversion."""
    metadata = model_folder.read_config(folder)
    provenance, dtypes = metadata["provenance"], None
    if "converted_from" in provenance:
        report = folder / model_folder.REPORT
        try:
            entries = read_json(report)["tensors"]
            exportable = [entry for entry in entries if "lost" not in entry]
            dtypes = {entry["source"]: entry["source_dtype"] for entry in exportable}
        except (KeyError, TypeError) as error:
            raise InputError(f"{report}: not the report of a conversion") from error
    params: dict[str, np.ndarray] = {}
    if (folder / model_folder.PARAMS).is_dir():
        leading = _leading_shapes_of(metadata["kind"], metadata["config"])
        _flatten(model_folder.read_params(folder, leading), "", params)
    return ModelFolder(
        folder=folder,
        kind=metadata["kind"],
        converted_from=provenance.get("converted_from"),
        config=metadata["config"],
        original=provenance.get("original", {}),
        params=params,
        dtypes=dtypes,
    )


def _leading_shapes_of(kind: str, config: Mapping[str, Any]) -> Leading | None:
    """Return a few shapes that the config requires; None for a kind without arrays."""
    if kind in CLIP_KINDS:
        return leading_shapes(CLIP_KINDS[kind][0].from_dict(config))
    if kind == "rudolph":
        return rudolph_leading_shapes(RudolphConfig.from_dict(config))
    if kind == "upscaler":
        return upscaler_leading_shapes(UpscalerConfig.from_dict(config))
    return vqgan_leading_shapes(VqganConfig.from_dict(config)) if kind == "vqgan" else None


def export_tensors(
    model: ModelFolder,
    table: Sequence[rules.Rule],
    derived: Sequence[rules.Derived | rules.Ignored],
    settings: Any,
    shapes: Mapping[str, rules.Shape],
) -> dict[str, rules.LazyArray]:
    """Return the original's tensors by name, each in the original's dtype."""
    for name in sorted(set(shapes) | set(model.params)):
        found = model.params[name].shape if name in model.params else "absent"
        expected = shapes.get(name, "absent")
        if found != expected:
            raise InputError(
                f"{model.folder}: parameter {name} is {found}; config.json asks for {expected}"
            )
    mappings = rules.resolve_rules(table, shapes)
    named = {name for mapping in mappings for name in mapping.sources}
    if model.dtypes is not None:
        report = model.folder / model_folder.REPORT
        if absent := sorted(named - set(model.dtypes)):
            raise InputError(f"{report}: does not list tensor {absent[0]!r}")
        for name, dtype in model.dtypes.items():
            if dtype not in SOURCE_DTYPES or not (name in named or rules.is_derived(name, derived)):
                raise InputError(f"{report}: lists {name!r} as {dtype!r}; not what was converted")
    return rules.export(mappings, derived, settings, model.params, model.dtypes)


def export_summary(kind: str, model: ModelFolder, folder: Path) -> Summary:
    """Summarize an export, and what its files cannot hold."""
    count = sum(array.size for array in model.params.values())
    tensors = model.params if model.dtypes is None else model.dtypes
    image = model.config.get("image", model.config)
    notes: tuple[str, ...] = ()
    if (background := image.get("background")) is not None:
        notes = (f"without the background {list(background)}: the original drops transparency",)
    return _summary(kind, len(tensors), count, folder, notes)


def _naming_report(weights: Weights | None) -> dict[str, Any]:
    """Report the entry that holds the tensors, and the rules that changed their names."""
    if weights is None:
        return {}
    return {"entry": weights.entry, "rules": [rule.to_dict() for rule in weights.rules]}


def _left_out(weights: Weights | None) -> list[dict[str, str]]:
    left_out = weights.left_out if weights is not None else {}
    return [{"source": name, "reason": reason} for name, reason in left_out.items()]


def _remarks(source: ForeignCheckpoint) -> tuple[str, ...]:
    """Say the same in words."""
    remarks = []
    if (weights := source.weights) is not None:
        remarks += [f"entry {safe_repr(weights.entry)}"] * bool(weights.entry)
        removed = [rule for rule in weights.rules if rule.tensors]
        remarks += [f"{rule.tensors} names without {safe_repr(rule.rule)}" for rule in removed]
        remarks += [f"{len(weights.left_out)} entries left out"] * bool(weights.left_out)
    if note := source.notes.get("activation"):
        remarks.append(f"activation {note['is']}, by {note['told_by']}")
    return tuple(remarks)


def _summary(
    kind: str, tensors: int, parameters: int, folder: Path, notes: tuple[str, ...] = ()
) -> Summary:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return Summary(kind, tensors, parameters, size, folder, notes)


def _file_digest(path: Path) -> dict[str, Any]:
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


def _flatten(tree: Mapping[str, Any], prefix: str, into: dict[str, np.ndarray]) -> None:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            _flatten(value, f"{prefix}{name}/", into)
        else:
            into[prefix + name] = value
