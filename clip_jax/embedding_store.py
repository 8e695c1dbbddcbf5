"""Picture embeddings on disk, found by what an image and a model contain, not by their names."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xxhash

from clip_jax.cache_dir import cache_dir
from clip_jax.errors import InputError

FILE_NAME = "embeddings.sqlite"
ASKED_AT_ONCE = 500  # SQLite before 3.32 takes 999 values in one question
PATIENCE = 60.0  # seconds that one process waits while another writes


class EmbeddingStore:
    """float32[E] by (model, image), both named by hashes.

    file: a SQLite file, made where it is not there; None: `cache_dir()/embeddings.sqlite`;
    ":memory:": nothing is kept. What `put` was given is there whole or not at all, and several
    processes may use one file. A file that is something else raises InputError.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        self.file = cache_dir() / FILE_NAME if file is None else file
        if self.file != ":memory:":
            Path(self.file).parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._database = sqlite3.connect(self.file, timeout=PATIENCE)
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings "
                    "(model TEXT, picture TEXT, embedding BLOB, PRIMARY KEY (model, picture))"
                )
                # A table of its own: earlier versions, too, may write to the same file.
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS digests "
                    "(model TEXT, picture TEXT, digest BLOB, PRIMARY KEY (model, picture))"
                )

    def get(self, model: str, pictures: Sequence[str]) -> dict[str, np.ndarray]:
        """Those of `pictures` that are known, each with its embedding.

        One that is not what was put is unknown; earlier versions put none to compare with.
        """
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(pictures), ASKED_AT_ONCE):
            some = pictures[start : start + ASKED_AT_ONCE]
            places = ", ".join("?" * len(some))
            with self._errors():
                rows = self._database.execute(
                    "SELECT picture, embedding, digest FROM embeddings "
                    "LEFT JOIN digests USING (model, picture) "
                    f"WHERE model = ? AND picture IN ({places})",
                    (model, *some),
                ).fetchall()
            found |= {
                picture: np.frombuffer(blob, "<f4")
                for picture, blob, digest in rows
                if digest in (None, _digest(model, picture, blob))
            }
        return found

    def put(self, model: str, embeddings: Mapping[str, np.ndarray]) -> None:
        blobs = {name: np.asarray(array, "<f4").tobytes() for name, array in embeddings.items()}
        digests = {name: _digest(model, name, blob) for name, blob in blobs.items()}
        with self._errors(), self._database:
            for table, values in (("embeddings", blobs), ("digests", digests)):
                self._database.executemany(
                    f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",
                    [(model, picture, value) for picture, value in values.items()],
                )

    def close(self) -> None:
        self._database.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"{self.file}: embeddings cannot be kept here ({error}); remove the file, or set "
                "XDG_CACHE_HOME to another folder"
            ) from error


def _digest(model: str, picture: str, blob: bytes) -> bytes:
    return xxhash.xxh3_128_digest(f"{model}\0{picture}\0".encode() + blob)
