"""TFRecord files without TensorFlow.

Source of the form: TensorFlow's guide "TFRecord and tf.train.Example". Checksums are not looked at:
a damaged image is found when it is decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_jax.paths import local_copy
from experiments.data.sources.files import ByteRange, read_range
from experiments.data.sources.records import LARGEST_FILE

LENGTH = struct.Struct("<QI")  # of a record, and its checksum; the record's own of 4 bytes ends it


def byte_ranges(file: Path) -> Iterator[ByteRange]:
    """Yields the place of each record; a file that is cut off raises ValueError."""
    end = file.stat().st_size
    place = 0
    with file.open("rb") as opened:
        while place < end:
            opened.seek(place)
            head = opened.read(LENGTH.size)
            if len(head) < LENGTH.size:
                raise ValueError("the file is cut off")
            length, _ = LENGTH.unpack(head)
            if length > LARGEST_FILE:
                raise ValueError(f"a record of {length} bytes")
            if place + LENGTH.size + length + 4 > end:
                raise ValueError("the file is cut off")
            yield place + LENGTH.size, length
            place += LENGTH.size + length + 4


def records(file: Path) -> Iterator[bytes]:
    """Yields one after another."""
    with local_copy(file) as local:
        yield from (read_range(local, place) for place in byte_ranges(local))


class TfRecords(Sequence[bytes]):
    """Records of several files by their number, as ArrayRecordDataSource gives them."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._places = [(file, place) for file in files for place in byte_ranges(file)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> bytes:
        return read_range(*self._places[index])
