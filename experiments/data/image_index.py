"""Images that stay in their tars: a prepared set holds where each one's bytes are.

Features of such a set are "tar", the file's name, and "place": first byte, length and CRC-32. Its
metadata name the folder of the tars, and `Split` adds the "image" that these lead to.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.text import escape
from experiments.data.sources.files import ByteRange, read_range
from experiments.data.sources.records import Candidate

INDEX = "index"  # an entry in the set's metadata: {"folder": of the tars}
TAR, PLACE = "tar", "place"


def indexed(example: Mapping[str, Any], candidate: Candidate) -> dict[str, Any]:
    """Returns the example with the place of its image's bytes, as the tar has them, in its stead.

    They are stored by no set: an image of another format than JPEG, PNG and WebP is not encoded
    again, but decoded whenever it is read.
    """
    place = candidate.place
    assert place is not None and candidate.image is not None
    numbers = place.start, place.length, zlib.crc32(candidate.image)
    rest = {name: value for name, value in example.items() if name != "image"}
    return {**rest, TAR: os.fsencode(place.tar), PLACE: np.array(numbers, np.int64)}


class IndexedRows(Sequence[Mapping[str, Any]]):
    """Rows of an indexed set, with "image" in place of TAR and PLACE."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], folder: str) -> None:
        """folder: of the tars; one that is not there raises InputError."""
        self._rows, self._folder = rows, as_path(folder)
        if not self._folder.is_dir():
            raise InputError(
                f"{escape(folder)}: no such folder; a set prepared with --index-only reads its "
                "images from the tars there: put them back, or prepare it again from where they are"
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        row = dict(self._rows[index])
        tar, (start, length, digest) = os.fsdecode(row.pop(TAR)), row.pop(PLACE).tolist()
        return {**row, "image": read_indexed(self._folder / tar, (start, length), digest)}


def read_indexed(tar: Path, place: ByteRange, digest: int) -> bytes:
    """Reads an image's bytes; InputError where they are not those that were indexed."""
    try:
        data = read_range(tar, place)
    except OSError as error:
        why = error.strerror or error
        raise InputError(f"{escape(str(tar))}: cannot be read: {why}") from error
    if zlib.crc32(data) != digest:
        raise InputError(
            f"{escape(str(tar))}: bytes {place[0]} to {sum(place)} are not the image that was "
            "indexed there; the tar has changed: prepare the set again"
        )
    return data
