"""Small files next to the weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.input_files import MAX_JSON_BYTES, MAX_VOCABULARY_BYTES, read_limited
from clip_jax.paths import as_path
from clip_jax.text import parse_json


def read_bytes(path: Path) -> bytes:
    """Read a small file of a model; InputError where it cannot be read."""
    try:
        limit = MAX_JSON_BYTES if path.suffix == ".json" else MAX_VOCABULARY_BYTES
        return read_limited(path, limit)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def sha256(path: Path) -> str:
    """Return the hash of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path) -> dict[str, Any]:
    """Read the object in a JSON file; InputError for anything else."""
    content = parse_json(read_bytes(as_path(path)), str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected a JSON object")
    return content


def without_nulls(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Drop keys whose value is null, in nested objects too: null means the default."""
    return {
        key: without_nulls(value) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if value is not None
    }
