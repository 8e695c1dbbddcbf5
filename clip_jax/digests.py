"""Digests of a model folder's arrays and files, so that damage is noticed when it is loaded.

    digests.json  {"algorithm": "xxh3_128",
                   "arrays": {"visual/projection": {"dtype", "shape", "digest"}, ...},
                   "files": {"config.json": digest, "tokenizer.model": digest, ...}}

An array's digest is of its bytes in C order, however they are stored. XXH3 finds damage, not
forgery: whoever can change a file can change its digest too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.text import parse_json

FILE_NAME, ALGORITHM = "digests.json", "xxh3_128"
PARAMS = "params"  # its files are Orbax's; the arrays in them have digests of their own
# The hub writes these, and a model is the same without them.
NOT_RECORDED = (FILE_NAME, "README.md", ".gitattributes")
ENV_VARIABLE = "RUDOLPH_JAX_VERIFY"
MAX_BYTES = 64 << 20  # bytes of digests.json; an array takes about 150
CHUNK_BYTES = 1 << 20  # bytes of an array in another order that are copied at once
REMEDY = "copy or convert the folder again"
AFTER_AN_EDIT = "after an edit of your own run: python -m converters verify FOLDER --write"

ArrayDigest = dict[str, Any]


@dataclass(frozen=True)
class Digests:
    """Holds digests.

    arrays: path -> {"dtype", "shape", "digest"}.
    files: name -> digest.
    """

    arrays: Mapping[str, ArrayDigest] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def should_verify(verify: bool | None = None) -> bool:
    """Decides if digests are compared: as `verify` says; None: unless $RUDOLPH_JAX_VERIFY is 0."""
    if verify is not None:
        return verify
    value = os.environ.get(ENV_VARIABLE, "1")
    if value not in ("0", "1"):
        raise InputError(f"{ENV_VARIABLE} is {value!r}; expected 0 or 1")
    return value == "1"


def digest_array(array: np.ndarray) -> ArrayDigest:
    """Digests the bytes in C order; copies at most CHUNK_BYTES of them, or one row, at a time."""
    digest = xxhash.xxh3_128()
    for chunk in _chunks(array):
        digest.update(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
    return {
        "dtype": str(array.dtype),
        "shape": list(array.shape),
        "digest": digest.hexdigest(),
    }


def digest_arrays(tree: Mapping[str, Any]) -> dict[str, ArrayDigest]:
    """Returns path -> digest of each array in nested dicts; threads hash without the GIL."""
    arrays = flatten(tree)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as threads:
        return dict(zip(arrays, threads.map(digest_array, arrays.values()), strict=True))


def flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Returns path -> leaf of nested dicts, with "/" between the names."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def write_digests(folder: Path, arrays: Mapping[str, ArrayDigest]) -> Digests:
    """Writes digests.json: `arrays`, and every file that is in the folder now."""
    digests = Digests(arrays, {name: _digest_file(folder / name) for name in _listing(folder)})
    content = {"algorithm": ALGORITHM, "arrays": digests.arrays, "files": digests.files}
    text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
    replace_file(folder / FILE_NAME, text + "\n")
    return digests


def read_digests(folder: Path) -> Digests | None:
    """Reads digests.json; None where there is none, InputError where it is damaged."""
    file = folder / FILE_NAME
    if not file.is_file():
        return None
    if (size := file.stat().st_size) > MAX_BYTES:
        raise InputError(f"{file}: is {size:,} bytes; expected {MAX_BYTES:,} at most; {REMEDY}")
    content = parse_json(file.read_bytes(), str(file))
    if not isinstance(content, dict) or set(content) != {"algorithm", "arrays", "files"}:
        raise InputError(f"{file}: holds no algorithm, arrays and files; {REMEDY}")
    if content["algorithm"] != ALGORITHM:
        raise InputError(
            f"{file}: algorithm is {content['algorithm']!r}; expected {ALGORITHM!r}; a newer "
            f"version of this package may know it, or {REMEDY}"
        )
    arrays, files = content["arrays"], content["files"]
    if not isinstance(arrays, dict) or not isinstance(files, dict):
        raise InputError(f"{file}: arrays and files are no JSON objects; {REMEDY}")
    return Digests(arrays, files)


def array_faults(recorded: Digests, found: Mapping[str, ArrayDigest]) -> Iterator[str]:
    """Yields a line for each array that is not what was recorded."""
    for name in sorted(recorded.arrays.keys() | found.keys()):
        about, now = recorded.arrays.get(name), found.get(name)
        if about is None:
            yield f"{PARAMS}/{name}: has no digest in {FILE_NAME}; {REMEDY}"
        elif now is None:
            yield f"{PARAMS}/{name}: is absent; {FILE_NAME} lists it; {REMEDY}"
        elif about != now:
            yield (
                f"{PARAMS}/{name}: digest differs from the one recorded when the model was saved; "
                f"the file is damaged: {REMEDY}"
            )


def header_faults(recorded: Digests, headers: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each array whose shape or dtype is not the one recorded.

    headers: path -> whatever has shape and dtype, which is known before arrays are read.
    """
    for name in sorted(recorded.arrays.keys() | headers.keys()):
        about, header = recorded.arrays.get(name), headers.get(name)
        if not isinstance(about, dict) or header is None:
            present = "is absent" if header is None else f"has no digest in {FILE_NAME}"
            yield f"{PARAMS}/{name}: {present}; {REMEDY}"
            continue
        found = {"dtype": str(np.dtype(header.dtype)), "shape": list(header.shape)}
        expected = {key: about.get(key) for key in found}
        if found != expected:
            yield (
                f"{PARAMS}/{name}: is {found['dtype']}{found['shape']}; {FILE_NAME} says "
                f"{expected['dtype']}{expected['shape']}; {REMEDY}"
            )


def file_faults(folder: Path, recorded: Digests) -> Iterator[str]:
    """Yields a line for each file that is not what was recorded; other files are allowed."""
    there = set(_listing(folder))
    for name, digest in sorted(recorded.files.items()):
        # No path out of digests.json is opened that is not found in the folder.
        if name not in there:
            yield f"{name!r}: is absent; {FILE_NAME} lists it; {REMEDY}; {AFTER_AN_EDIT}"
        elif _digest_file(folder / name) != digest:
            yield (
                f"{name}: digest differs from the one recorded when the model was saved; the file "
                f"is damaged or another model's: {REMEDY}; {AFTER_AN_EDIT}"
            )


def check_files(folder: Path, names: Iterable[str], verify: bool | None = None) -> None:
    """Raises InputError for the first of these files that is recorded and differs."""
    if should_verify(verify) and (recorded := read_digests(folder)) is not None:
        some = {name: recorded.files[name] for name in names if name in recorded.files}
        for fault in file_faults(folder, Digests(files=some)):
            raise InputError(f"{folder}: {fault}")


def is_recorded(folder: str | Path, names: Iterable[str]) -> bool:
    """Returns whether one of these files has a digest, so that it is the one that was saved."""
    recorded = read_digests(as_path(folder))
    return recorded is not None and any(name in recorded.files for name in names)


def _listing(folder: Path) -> list[str]:
    """Lists regular files by relative POSIX path, without arrays, hidden files and NOT_RECORDED."""
    names = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if parts[0] != PARAMS and not hidden and path.is_file():
            names.append("/".join(parts))
    return [name for name in names if name not in NOT_RECORDED]


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    if array.flags.c_contiguous or array.ndim < 2:
        yield array
        return
    rows = max(CHUNK_BYTES // max(array[:1].nbytes, 1), 1)
    for first in range(0, len(array), rows):
        yield array[first : first + rows]
