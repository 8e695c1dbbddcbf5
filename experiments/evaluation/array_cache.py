"""Arrays kept on disk by what they are of, so that nothing is computed twice.

A file ends in the digest of its array; numpy reads it as any other, for it reads no further.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.atomic_file import replace_file, replacing
from clip_jax.digests import digest_array
from clip_jax.text import escape


class ArrayCache:
    """folder: holds KEY.npy and, to be read by a person, KEY.json; made when it is needed."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, about: Mapping[str, Any]) -> np.ndarray | None:
        """The array that `about` tells of, or None where there is none, or a damaged file.

        Files of earlier versions end with their array, and are taken as they are.
        """
        try:
            with open(self._file(about), "rb") as file:
                array = np.load(file, allow_pickle=False)
                return array if file.read() in (b"", _digest(array)) else None
        except (OSError, ValueError, EOFError, MemoryError):
            return None

    def put(self, about: Mapping[str, Any], array: np.ndarray) -> None:
        """Replaces files whole: neither an interruption nor a second writer leaves half of one."""
        file = self._file(about)
        text = escape(json.dumps(about, ensure_ascii=False, indent=1))
        replace_file(file.with_suffix(".json"), text + "\n")
        with replacing(file) as beside, open(beside, "wb") as out:
            np.save(out, array, allow_pickle=False)
            out.write(_digest(array))

    def _file(self, about: Mapping[str, Any]) -> Path:
        text = escape(json.dumps(about, ensure_ascii=False, sort_keys=True))
        return self.folder / f"{hashlib.sha256(text.encode('utf-8')).hexdigest()}.npy"


def _digest(array: np.ndarray) -> bytes:
    return json.dumps(digest_array(array)).encode()
