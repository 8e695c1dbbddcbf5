"""The embeddings of an index: unit rows, float16[rows, E], appended to one file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from clip_jax.errors import InputError
from clip_jax.text import escape

DTYPE = np.dtype("<f2")


def embeddings_file(folder: Path, version: int) -> Path:
    """Returns the file; its version grows when unused rows are removed."""
    return folder / f"embeddings-{version}.f16"


def read_embeddings(file: Path, rows: int, width: int) -> np.ndarray:
    """Maps float16[rows, width]; a file that is shorter raises InputError."""
    needed = rows * width * DTYPE.itemsize
    found = file.stat().st_size if file.exists() else 0
    if found < needed:
        raise InputError(
            f"{escape(str(file))}: has {found} bytes; expected {needed} for {rows} embeddings of "
            f"{width} values; index once more"
        )
    if not rows:
        return np.zeros((0, width), DTYPE)
    return np.memmap(file, DTYPE, "r", shape=(rows, width))


class RowReader:
    """Reads single rows of embeddings from their file.

    Through the memory map each would bring 15 pages of its neighbours into the process.
    """

    def __init__(self, embeddings: np.ndarray) -> None:
        self._embeddings = embeddings
        self._file = None
        if isinstance(embeddings, np.memmap) and embeddings.filename is not None:
            self._file = open(embeddings.filename, "rb", buffering=0)  # noqa: SIM115

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Returns float16[n, E] of int[n]; InputError where the file ends before one."""
        if self._file is None:
            return self._embeddings[rows]
        found = np.empty((len(rows), self._embeddings.shape[1]), DTYPE)
        for place, row in enumerate(rows):
            size = found[place].nbytes
            if os.preadv(self._file.fileno(), [found[place].data], int(row) * size) != size:
                raise InputError(
                    f"{escape(self._file.name)}: ends before row {row}; index once more"
                )
        return found

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class EmbeddingWriter:
    """Appends rows after the first `rows`; what an interruption left behind them is overwritten."""

    def __init__(self, file: Path, rows: int, width: int) -> None:
        self.rows = rows
        self._file = file.open("r+b" if file.exists() else "x+b")
        self._file.truncate(rows * width * DTYPE.itemsize)
        self._file.seek(0, os.SEEK_END)

    def append(self, rows: np.ndarray) -> range:
        """Writes float[n, width], which is on disk when this returns; returns their numbers."""
        self._file.write(np.asarray(rows, DTYPE).tobytes())
        self._file.flush()
        os.fsync(self._file.fileno())
        numbers = range(self.rows, self.rows + len(rows))
        self.rows = numbers.stop
        return numbers

    def close(self) -> None:
        self._file.close()
