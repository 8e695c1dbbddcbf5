"""One view of the tensors in a checkpoint: PyTorch or safetensors, one file or shards."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from converters import safetensors_file, torch_file
from converters.files import read_json
from converters.torch_unpickler import shown

SAFETENSORS = ".safetensors"
INDEX = ".index.json"
SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", SAFETENSORS)


@dataclass(frozen=True)
class Weights:
    """path: what the user named. tensors: read-only memory maps. files: which file holds which
    tensor. sources: every file that was read, the index included."""

    path: Path
    tensors: Mapping[str, np.ndarray]
    files: Mapping[str, Path]
    sources: tuple[Path, ...]

    def file_of(self, name: str) -> Path:
        return self.files.get(name, self.path)

    def release(self, name: str) -> None:
        """Gives back the memory that a tensor's file has come to occupy by being read.

        The pages of a memory map count as the process's own until the system wants them.
        """
        owner: Any = self.tensors[name]
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap) and hasattr(owner, "madvise"):
            owner.madvise(mmap.MADV_DONTNEED)


def open_weights(path: str | Path, names: Sequence[str] = ()) -> Weights:
    """The tensors of a file, or of a folder that holds one of `names`, the first that exists.

    Without names, of a folder that holds exactly one checkpoint. A name ending in `.index.json`
    stands for its shards. Raises InputError for anything absent, damaged or inconsistent.
    """
    path = Path(path)
    if path.is_dir():
        path = _first(path, names) if names else _only(path)
    if path.name.endswith(INDEX):
        return _sharded(path)
    tensors = _read(path)
    return Weights(path, tensors, dict.fromkeys(tensors, path), (path,))


def _read(path: Path) -> dict[str, np.ndarray]:
    return (safetensors_file if path.suffix == SAFETENSORS else torch_file).read(path)


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{folder}: holds no weights; expected {' or '.join(names)}")


def _only(folder: Path) -> Path:
    found = sorted(p.name for p in folder.iterdir() if p.suffix in SUFFIXES)
    if len(found) != 1:
        some = ", ".join(found[:4]) if found else "none"
        raise InputError(f"{folder}: expected one checkpoint ({'|'.join(SUFFIXES)}), found {some}")
    return folder / found[0]


def _sharded(index: Path) -> Weights:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(s, str) for s in places.values()):
        raise InputError(f"{index}: has no weight_map from tensors to files")
    tensors, files = {}, {}
    shards = list(dict.fromkeys(places.values()))
    for shard in shards:
        # An index may come from a stranger: its names must not lead out of the folder.
        if Path(shard).name != shard or "\\" in shard or shard in ("", ".", ".."):
            raise InputError(f"{index}: {shown(shard)} is not the name of a file beside it")
        path = index.parent / shard
        if not path.is_file():
            raise InputError(f"{index}: names the shard {shown(shard)}, which is not there")
        held = _read(path)
        named = {name for name, place in places.items() if place == shard}
        for name in sorted(named ^ set(held)):
            if name in named:
                raise InputError(f"{path}: lacks tensor {shown(name)}, which {index.name} names")
            raise InputError(f"{path}: has tensor {shown(name)}, which {index.name} does not name")
        tensors.update(held)
        files.update(dict.fromkeys(held, path))
    ordered = {name: tensors[name] for name in places}
    return Weights(index, ordered, files, (index, *(index.parent / s for s in shards)))
