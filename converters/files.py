"""Small files beside the weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from converters.torch_unpickler import shown


def read_bytes(path: Path) -> bytes:
    """A small file that belongs to a model; InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file; InputError for anything else."""
    try:
        content = json.loads(read_bytes(Path(path)), object_pairs_hook=unique_keys)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected a JSON object")
    return content


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON's object hook that refuses a name given twice, where Python would take the last."""
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shown(twice)} is there twice")
    return found
