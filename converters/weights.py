"""One view of the tensors in a checkpoint: PyTorch or safetensors, one file or shards."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.paths import local_path
from converters import safetensors_file, torch_file
from converters.files import read_json
from converters.tensor_names import AppliedRule, canonicalize
from converters.torch_file import TorchFile
from converters.torch_unpickler import safe_repr

SAFETENSORS = ".safetensors"
INDEX = ".index.json"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", SAFETENSORS)


@dataclass(frozen=True)
class Selection:
    """Choose tensors of a checkpoint; None: by the rules.

    entry: of its container (`containers.py`).
    prefix: of tensor names (`tensor_names.py`).
    """

    entry: str | None = None
    prefix: str | None = None


@dataclass(frozen=True)
class Weights:
    """Hold the tensors of a checkpoint.

    path: as the user gave it.
    tensors: canonical name -> read-only memory map.
    files: canonical name -> the file that holds it.
    sources: every file that was read, the index included.
    names_in_file: canonical name -> name in the file, where they differ.
    entry: of the container.
    rules: those that changed names.
    left_out: entry or tensor -> why it is not among the tensors.
    script: the file, where it is a TorchScript archive.
    """

    path: Path
    tensors: Mapping[str, np.ndarray]
    files: Mapping[str, Path]
    sources: tuple[Path, ...]
    names_in_file: Mapping[str, str] = field(default_factory=dict)
    entry: str = ""
    rules: tuple[AppliedRule, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    script: TorchFile | None = None

    def file_of(self, name: str) -> Path:
        return self.files.get(name, self.path)

    def release(self, name: str) -> None:
        """Release the memory of a tensor's file after it was read.

        The pages of a memory map count as the process's own until the system reclaims them.
        """
        owner: Any = self.tensors[name]
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(owner, "madvise"):
            owner.madvise(mmap.MADV_DONTNEED)


def open_weights(
    path: str | Path, names: Sequence[str] = (), selection: Selection | None = None
) -> Weights:
    """Open the tensors of a file, or of a folder: the first of `names` that exists.

    Without names the folder must hold exactly one checkpoint. A name ending in `.index.json` stands
    for its shards. Names become canonical by the rules of `containers.py` and `tensor_names.py`.
    Raises InputError for anything absent, damaged or inconsistent.
    """
    path, selection = local_path(path, "a checkpoint"), selection or Selection()
    if path.is_dir():
        path = _first(path, names) if names else _only_checkpoint(path)
    if path.name.endswith(INDEX):
        return _canonicalized(_sharded(path, selection.entry), selection.prefix)
    held = _read(path, selection.entry)
    weights = Weights(
        path,
        held.tensors,
        dict.fromkeys(held.tensors, path),
        (path,),
        entry=held.entry,
        left_out=_left_out_entries(held),
        script=held if held.script is not None else None,
    )
    return _canonicalized(weights, selection.prefix)


def _canonicalized(weights: Weights, prefix: str | None) -> Weights:
    """Return the same tensors under canonical names."""
    naming = canonicalize(weights.tensors, str(weights.path), prefix)
    names = naming.names
    reason = f"not below --prefix={prefix}"
    return replace(
        weights,
        tensors={name: weights.tensors[raw] for raw, name in names.items()},
        files={name: weights.files[raw] for raw, name in names.items()},
        names_in_file={name: raw for raw, name in names.items() if name != raw},
        rules=naming.rules,
        left_out={**weights.left_out, **dict.fromkeys(naming.left_out, reason)},
    )


def _left_out_entries(held: TorchFile) -> dict[str, str]:
    return dict.fromkeys(held.left_out, f"not in the state dict {held.entry!r}")


def _read(path: Path, entry: str | None) -> TorchFile:
    if path.suffix != SAFETENSORS:
        return torch_file.open_file(path, entry)
    if entry is not None:
        raise InputError(f"{path}: a safetensors file has no entries; leave --entry out")
    return TorchFile(safetensors_file.read(path))


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder}: holds no weights; expected {' or '.join(names)}")


def _only_checkpoint(folder: Path) -> Path:
    found = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
    if len(found) != 1:
        some = ", ".join(found[:4]) if found else "none"
        raise InputError(f"{folder}: expected one checkpoint ({'|'.join(SUFFIXES)}), found {some}")
    return folder / found[0]


def shard_names(index: Mapping[str, Any], where: str) -> list[str]:
    """Return the files that an index names, each once. where: the index in errors."""
    places = index.get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(s, str) for s in places.values()):
        raise InputError(f"{where}: has no weight_map from tensors to files")
    names = list(dict.fromkeys(places.values()))
    for name in names:
        # An index may come from a stranger: its names must not lead out of the folder.
        if Path(name).name != name or "\\" in name or name in ("", ".", "..") or "\0" in name:
            raise InputError(f"{where}: {safe_repr(name)} is not the name of a file next to it")
    return names


def _sharded(index: Path, entry: str | None) -> Weights:
    content = read_json(index)
    names = shard_names(content, str(index))
    places = content["weight_map"]
    tensors: dict[str, np.ndarray] = {}
    files: dict[str, Path] = {}
    left_out: dict[str, str] = {}
    entries: dict[str, Path] = {}
    for shard in names:
        path = index.parent / shard
        if not path.is_file():
            raise InputError(f"{index}: names the shard {safe_repr(shard)}, which is not there")
        shard_file = _read(path, entry)
        held = shard_file.tensors
        entries.setdefault(shard_file.entry, path)
        left_out |= {f"{shard}: {name}": why for name, why in _left_out_entries(shard_file).items()}
        named = {name for name, place in places.items() if place == shard}
        for name in sorted(named ^ set(held)):
            if name in named:
                raise InputError(
                    f"{path}: lacks tensor {safe_repr(name)}, which {index.name} names"
                )
            raise InputError(
                f"{path}: has tensor {safe_repr(name)}, which {index.name} does not name"
            )
        tensors.update(held)
        files.update(dict.fromkeys(held, path))
    ordered = {name: tensors[name] for name in places}
    if len(entries) > 1:
        held_in = " and ".join(
            f"{path.name} in {safe_repr(name)}" for name, path in entries.items()
        )
        raise InputError(f"{index}: its shards hold their tensors in different entries, {held_in}")
    sources = (index, *(index.parent / shard for shard in names))
    entry_name = next(iter(entries), "")
    return Weights(index, ordered, files, sources, entry=entry_name, left_out=left_out)
