"""The catalogue of an index: a SQLite table of images and the rows of their embeddings.

A key is stored as `os.fsencode` gives it, since names of files need not be UTF-8. Images with equal
bytes share a row. What `commit` has written is valid after any interruption:
embeddings are on disk before the rows that name them are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from clip_jax.errors import InputError
from clip_jax.index.sources import Entry
from clip_jax.text import escape

FILE_NAME = "catalog.sqlite"
TIMEOUT_SECONDS = 60.0  # that a reader waits while a writer commits
SQL_BATCH_SIZE = 500  # SQLite before 3.32 takes at most 999 parameters a statement
_TABLES = (
    "CREATE TABLE IF NOT EXISTS images (key BLOB PRIMARY KEY, size INTEGER, changed INTEGER, "
    "offset INTEGER, hash BLOB, row INTEGER, error TEXT)",
    "CREATE INDEX IF NOT EXISTS by_hash ON images (hash)",
    "CREATE INDEX IF NOT EXISTS by_row ON images (row)",
    "CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT)",
    "CREATE TABLE IF NOT EXISTS unused (row INTEGER PRIMARY KEY)",
)


@dataclasses.dataclass(frozen=True)
class Indexed:
    """An image of the catalogue. row: of its embedding, or None with the error of reading it."""

    entry: Entry
    hash: bytes
    row: int | None
    error: str | None


class Catalog:
    """Opens the catalogue of an index folder.

    write: create it where it is absent. Without, a missing one raises InputError.
    """

    def __init__(self, folder: Path, write: bool) -> None:
        self.file = folder / FILE_NAME
        with self._errors():
            if write:
                self._database = sqlite3.connect(self.file, timeout=TIMEOUT_SECONDS)
                with self._database:
                    for statement in _TABLES:
                        self._database.execute(statement)
            else:
                uri = f"{self.file.absolute().as_uri()}?mode=ro"
                self._database = sqlite3.connect(
                    uri, uri=True, timeout=TIMEOUT_SECONDS, check_same_thread=False
                )
                self._database.execute("SELECT count(*) FROM facts")

    def facts(self) -> dict[str, str]:
        """Returns what is known of the whole index, by name."""
        return dict(self._all("SELECT name, value FROM facts"))

    def find(self, keys: Sequence[str]) -> dict[str, Indexed]:
        """Returns the images that are known, by key."""
        return {each.entry.key: each for each in self._select("key", [*map(os.fsencode, keys)])}

    def rows_of_hashes(self, hashes: Sequence[bytes]) -> dict[bytes, int]:
        """Returns the rows of contents that have an embedding."""
        return {
            each.hash: each.row for each in self._select("hash", hashes) if each.row is not None
        }

    def images_of_rows(self, rows: Sequence[int]) -> dict[int, list[Entry]]:
        """Returns row -> the images that have it, sorted by key."""
        found: dict[int, list[Entry]] = {}
        for each in sorted(self._select("row", rows), key=lambda each: each.entry.key):
            if each.row is not None:
                found.setdefault(each.row, []).append(each.entry)
        return found

    def images(self) -> Iterator[Indexed]:
        """Yields all images in the order of their keys."""
        with self._errors():
            for row in self._database.execute(f"SELECT {_COLUMNS} FROM images ORDER BY key"):
                yield _indexed(row)

    def count(self) -> tuple[int, int]:
        """Returns the numbers of images with an embedding, and of those that cannot be read."""
        (readable, all_images), = self._all("SELECT count(row), count(*) FROM images")
        return readable, all_images - readable

    def unreadable(self) -> dict[str, str]:
        """Returns key -> error."""
        rows = self._all("SELECT key, error FROM images WHERE row IS NULL ORDER BY key")
        return {os.fsdecode(key): error for key, error in rows}

    def unused_rows(self) -> list[int]:
        """Returns the rows of embeddings that no image has any longer, as `note_unused` found."""
        return [row for (row,) in self._all("SELECT row FROM unused ORDER BY row")]

    def commit(self, images: Iterable[Indexed], facts: Mapping[str, object]) -> None:
        """Adds or replaces images, and facts, in one transaction."""
        rows = []
        for image in images:
            e = image.entry
            key = os.fsencode(e.key)
            rows.append((key, e.size, e.changed, e.offset, image.hash, image.row, image.error))
        with self._errors(), self._database:
            self._database.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", rows
            )
            self._database.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)",
                [(name, str(value)) for name, value in facts.items()],
            )

    def remove_all_but(self, keys: Iterable[str]) -> int:
        """Removes images whose key is not among these; returns how many."""
        with self._errors(), self._database:
            self._database.execute("CREATE TEMP TABLE IF NOT EXISTS present (key BLOB PRIMARY KEY)")
            self._database.execute("DELETE FROM present")
            self._database.executemany(
                "INSERT INTO present VALUES (?)", ((os.fsencode(key),) for key in keys)
            )
            removed = self._database.execute(
                "DELETE FROM images WHERE key NOT IN (SELECT key FROM present)"
            )
            return removed.rowcount

    def note_unused(self, rows: int) -> int:
        """Finds which of so many rows no image has; returns their number."""
        used = {row for (row,) in self._all("SELECT DISTINCT row FROM images")}
        unused = [(row,) for row in range(rows) if row not in used]
        with self._errors(), self._database:
            self._database.execute("DELETE FROM unused")
            self._database.executemany("INSERT INTO unused VALUES (?)", unused)
        return len(unused)

    def renumber(self, kept: Sequence[int], facts: Mapping[str, object]) -> None:
        """Gives the rows that are kept the numbers 0, 1, ..., with new facts, in a transaction."""
        with self._errors(), self._database:
            self._database.execute("CREATE TEMP TABLE moved (old INTEGER PRIMARY KEY, new INTEGER)")
            self._database.executemany(
                "INSERT INTO moved VALUES (?, ?)", ((old, new) for new, old in enumerate(kept))
            )
            self._database.execute(
                "UPDATE images SET row = (SELECT new FROM moved WHERE old = row) "
                "WHERE row IS NOT NULL"
            )
            self._database.execute("DELETE FROM unused")
            self._database.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?, ?)",
                [(name, str(value)) for name, value in facts.items()],
            )
            self._database.execute("DROP TABLE moved")

    def close(self) -> None:
        self._database.close()

    def _select(self, column: str, values: Sequence[object]) -> Iterator[Indexed]:
        for start in range(0, len(values), SQL_BATCH_SIZE):
            batch = values[start : start + SQL_BATCH_SIZE]
            marks = ", ".join("?" * len(batch))
            query = f"SELECT {_COLUMNS} FROM images WHERE {column} IN ({marks})"
            yield from map(_indexed, self._all(query, batch))

    def _all(self, query: str, values: Sequence[object] = ()) -> list[tuple]:
        with self._errors():
            return self._database.execute(query, tuple(values)).fetchall()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(
                f"{escape(str(self.file))}: is no catalogue of an index ({error}); expected the "
                "folder that python -m clip_jax index wrote, or remove it and index again"
            ) from error


_COLUMNS = "key, size, changed, offset, hash, row, error"


def _indexed(row: tuple) -> Indexed:
    key, size, changed, offset, content, number, error = row
    return Indexed(Entry(os.fsdecode(key), size, changed, offset), content, number, error)
