"""Image embeddings on disk, keyed by the contents of image and model, not by their names."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import xxhash

from clip_jax.cache_dir import cache_dir
from clip_jax.errors import InputError
from clip_jax.paths import local_path

FILE_NAME = "embeddings.sqlite"
SQL_BATCH_SIZE = 500  # SQLite before 3.32 takes at most 999 parameters a statement
FileState = tuple[bytes, int, int]  # os.fsencode(absolute path), size, st_mtime_ns
TIMEOUT_SECONDS = 60.0  # that one process waits while another writes


class EmbeddingStore:
    """Maps (model, image), both hashes, to embeddings float32[E].

    file: a SQLite file, created if it is absent; None: `cache_dir()/embeddings.sqlite`;
        ":memory:": nothing is stored on disk.

    A `put` is one transaction, and several processes may use one file. A file that is not a SQLite
    database raises InputError.
    """

    def __init__(self, file: str | Path | None = None) -> None:
        self.file = cache_dir() / FILE_NAME if file is None else file
        if self.file != ":memory:":
            local_path(self.file, "a store of embeddings").parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._database = sqlite3.connect(self.file, timeout=TIMEOUT_SECONDS)
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS embeddings "
                    "(model TEXT, picture TEXT, embedding BLOB, PRIMARY KEY (model, picture))"
                )
                # A separate table: earlier versions may write to the same file.
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS digests "
                    "(model TEXT, picture TEXT, digest BLOB, PRIMARY KEY (model, picture))"
                )
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS files "
                    "(path BLOB PRIMARY KEY, size INTEGER, changed INTEGER, hash TEXT)"
                )

    def get_hashes(self, files: Sequence[FileState]) -> dict[bytes, str]:
        """Returns path -> hash of those files that have the size and time that are stored."""
        wanted = {path: (size, changed) for path, size, changed in files}
        found: dict[bytes, str] = {}
        for start in range(0, len(files), SQL_BATCH_SIZE):
            batch = [path for path, _, _ in files[start : start + SQL_BATCH_SIZE]]
            placeholders = ", ".join("?" * len(batch))
            with self._errors():
                rows = self._database.execute(
                    f"SELECT path, size, changed, hash FROM files WHERE path IN ({placeholders})",
                    batch,
                ).fetchall()
            found |= {
                path: content
                for path, size, changed, content in rows
                if wanted[path] == (size, changed)
            }
        return found

    def put_hashes(self, hashes: Mapping[FileState, str]) -> None:
        """Stores the hashes of files in the state that they had before they were read."""
        with self._errors(), self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(*state, content) for state, content in hashes.items()],
            )

    def get(self, model: str, images: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns image -> embedding of those images that are stored.

        A stored embedding that differs from its digest is left out; earlier versions stored no
        digests.
        """
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(images), SQL_BATCH_SIZE):
            batch = images[start : start + SQL_BATCH_SIZE]
            placeholders = ", ".join("?" * len(batch))
            with self._errors():
                rows = self._database.execute(
                    "SELECT picture, embedding, digest FROM embeddings "
                    "LEFT JOIN digests USING (model, picture) "
                    f"WHERE model = ? AND picture IN ({placeholders})",
                    (model, *batch),
                ).fetchall()
            found |= {
                image: np.frombuffer(blob, "<f4")
                for image, blob, digest in rows
                if digest in (None, _digest(model, image, blob))
            }
        return found

    def put(self, model: str, embeddings: Mapping[str, np.ndarray]) -> None:
        """Stores image -> embedding, float32[E] each; replaces those that are stored."""
        blobs = {name: np.asarray(array, "<f4").tobytes() for name, array in embeddings.items()}
        digests = {name: _digest(model, name, blob) for name, blob in blobs.items()}
        with self._errors(), self._database:
            for table, values in (("embeddings", blobs), ("digests", digests)):
                self._database.executemany(
                    f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?)",
                    [(model, image, value) for image, value in values.items()],
                )

    def close(self) -> None:
        self._database.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"{self.file}: embeddings cannot be stored here ({error}); remove the file, or set "
                "XDG_CACHE_HOME to another folder"
            ) from error


def _digest(model: str, image: str, blob: bytes) -> bytes:
    return xxhash.xxh3_128_digest(f"{model}\0{image}\0".encode() + blob)
