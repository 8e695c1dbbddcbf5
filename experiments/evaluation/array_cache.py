"""Caches arrays on disk by what they are of, so that nothing is computed twice.

A file ends in the digest of its array; numpy reads it as any other, for it reads no further.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clip_jax.atomic_file import replace_file, replacing
from clip_jax.digests import digest_array
from clip_jax.paths import local_path
from clip_jax.text import escape

CHUNK = 64


class ArrayCache:
    """folder: holds KEY.npy and, to be read by a person, KEY.json; made when it is needed."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = local_path(folder, "a cache of features")

    def get(self, key: Mapping[str, Any]) -> np.ndarray | None:
        """The array that `key` describes, or None where there is none, or a damaged file.

        Files of earlier versions end with their array, and are taken as they are.
        """
        try:
            with open(self._file(key), "rb") as file:
                array = np.load(file, allow_pickle=False)
                return array if file.read() in (b"", _digest(array)) else None
        except (OSError, ValueError, EOFError, MemoryError):
            return None

    def put(self, key: Mapping[str, Any], array: np.ndarray) -> None:
        """Replaces files whole: neither an interruption nor a second writer leaves half of one."""
        file = self._file(key)
        text = escape(json.dumps(key, ensure_ascii=False, indent=1))
        replace_file(file.with_suffix(".json"), text + "\n")
        with replacing(file) as beside, open(beside, "wb") as out:
            np.save(out, array, allow_pickle=False)
            out.write(_digest(array))

    def _file(self, key: Mapping[str, Any]) -> Path:
        text = escape(json.dumps(key, ensure_ascii=False, sort_keys=True))
        return self.folder / f"{hashlib.sha256(text.encode('utf-8')).hexdigest()}.npy"


def cached_map(
    cache: ArrayCache | None,
    key: Mapping[str, Any],
    count: int,
    compute: Callable[[slice], np.ndarray],
    *,
    chunk: int = CHUNK,
) -> np.ndarray:
    """compute(rows) of rows 0 to count, `chunk` at a time; a later run resumes after its chunks.

    key: what the rows are and how they are made, all of it: chunks are found by it again.
    """
    parts = []
    title = str(key.get("what", ""))
    with tqdm(total=count, desc=title, unit=" rows", disable=None, leave=False) as bar:
        for start in range(0, count, chunk):
            rows = slice(start, min(start + chunk, count))
            chunk_key = {**key, "rows": [rows.start, rows.stop]}
            part = cache.get(chunk_key) if cache else None
            if part is None:
                part = compute(rows)
                if cache:
                    cache.put(chunk_key, part)
            parts.append(part)
            bar.update(rows.stop - rows.start)
    return np.concatenate(parts)


def _digest(array: np.ndarray) -> bytes:
    return json.dumps(digest_array(array)).encode()
