"""Plans the chunks of a table of any size, of which no row stays in memory.

A chunk has so many records, in the order in which they first appear. It is a run of rows, without
those of records of earlier chunks, and with later rows of its own records. The table is read once;
what is noted of its rows lies in a temporary folder, 40 bytes a row. In memory are a byte a row and
56 bytes for each row that is not in the run of its record.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from experiments.data.sources.tables import RowPlace, Table, TableRow

# Bytes of a table whose rows are sorted together, some million of them.
SORTED_BYTES = 2**26
MOST_BUCKETS = 256  # open files
ROWS_AT_ONCE = 2**16


@dataclasses.dataclass(frozen=True)
class TableChunk:
    """Rows of a table that are read together.

    table: the file's name. quoted: of `Table`. start, rows: the run. elsewhere: int64[M], numbers
    of its rows that other chunks have. later: int64[N, 3], places of rows behind the run.
    """

    table: str
    quoted: bool
    start: RowPlace
    rows: int
    elsewhere: np.ndarray
    later: np.ndarray

    def read(self, table: Table) -> Iterator[TableRow]:
        """Yields the rows in their order."""
        elsewhere = set(self.elsewhere.tolist())
        end = self.start.number + self.rows
        for row in table.rows(self.start):
            if row.number == end:
                break
            if row.number not in elsewhere:
                yield row
        for place in self.later.tolist():
            yield next(table.rows(RowPlace(*place)))


def plan_chunks(table: Table, digest: Callable[[Any], int | None], size: int) -> list[TableChunk]:
    """Returns the chunks of `size` records.

    digest: of a row's value, unsigned of 64 bits and the same for rows of one record; None for a
    row that is left out, which is in the run that it lies in. Different records with one digest are
    only read together.
    """
    with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as folder:
        buckets = 1 + min(table.path.stat().st_size // SORTED_BYTES, MOST_BUCKETS - 1)
        notes = _Notes(Path(folder), buckets)
        first, last = notes.write(table.rows(), digest)
        if first is None:
            return []
        starts = notes.starts(size)
        places = notes.places(starts)
        owner, later, elsewhere = notes.scattered(starts)
        # Rows before the first record are in its run.
        runs = [first, *(RowPlace(*place) for place in places[1:].tolist())]
        ends = [place.number for place in runs[1:]] + [last + 1]
        by_owner = np.searchsorted(owner, np.arange(len(runs) + 1))
        own = np.searchsorted(elsewhere, [place.number for place in runs] + [last + 1])
        return [
            TableChunk(
                table.path.name, table.quoted, start, end - start.number,
                elsewhere[own[i] : own[i + 1]], later[by_owner[i] : by_owner[i + 1]],
            )
            for i, (start, end) in enumerate(zip(runs, ends, strict=True))
        ]  # fmt: skip


class _Notes:
    """Notes on all rows that are not left out, in files: places, and digests in buckets."""

    def __init__(self, folder: Path, buckets: int) -> None:
        self._places = folder / "places"
        self._buckets = [folder / str(number) for number in range(buckets)]
        self._count = 0

    def write(
        self, rows: Iterator[TableRow], digest: Callable[[Any], int | None]
    ) -> tuple[RowPlace | None, int]:
        """Takes notes; returns the first row's place, None without rows, and the last number."""
        first, number = None, 0
        with contextlib.ExitStack() as stack:
            places = stack.enter_context(self._places.open("wb"))
            buckets = [stack.enter_context(file.open("wb")) for file in self._buckets]
            found: list[tuple[int, int, int]] = []
            digests: list[int] = []

            def flush() -> None:
                np.array(found, np.int64).tofile(places)
                indexed = np.empty((len(digests), 2), np.uint64)
                indexed[:, 0] = digests
                indexed[:, 1] = np.arange(self._count, self._count + len(digests))
                self._count += len(digests)
                bucket = indexed[:, 0] % np.uint64(len(buckets))
                for i, file in enumerate(buckets):
                    indexed[bucket == i].tofile(file)
                found.clear()
                digests.clear()

            for row in rows:
                first, number = first or row.place, row.number
                value = digest(row.value)
                if value is not None:
                    found.append(row.place)
                    digests.append(value)
                    if len(found) == ROWS_AT_ONCE:
                        flush()
            flush()
        return first, number

    def starts(self, size: int) -> np.ndarray:
        """Returns the indices of the rows that begin chunks, int64[C]; [0] without records."""
        begins = np.ones(self._count, bool)  # a record
        for repeated, _ in self._repeated():
            begins[repeated] = False
        found, seen = [np.zeros(1, np.int64)], 0
        for start in range(0, self._count, ROWS_AT_ONCE):
            here = start + np.flatnonzero(begins[start : start + ROWS_AT_ONCE])
            chosen = here[-seen % size :: size]
            found.append(chosen[chosen > 0])
            seen += len(here)
        return np.concatenate(found)

    def places(self, indices: np.ndarray) -> np.ndarray:
        """Returns int64[N, 3]: offset, number and line of these rows, whose indices are sorted."""
        found = np.zeros((len(indices), 3), np.int64)
        blocks = range(0, self._count, ROWS_AT_ONCE)
        bounds = np.searchsorted(indices, [*blocks, self._count])
        for start, begin, end in zip(blocks, bounds, bounds[1:], strict=False):
            if begin < end:  # no mapping of the file: its pages would stay in memory
                block = np.fromfile(
                    self._places, np.int64, 3 * ROWS_AT_ONCE, offset=3 * 8 * start
                )  # fmt: skip
                found[begin:end] = block.reshape(-1, 3)[indices[begin:end] - start]
        return found

    def scattered(self, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the rows that are not in the run of their record.

        int64[N]: the record's chunk, in order, and int64[N, 3]: their places; int64[N]: their
        numbers, in order.
        """
        rows, owners = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for repeated, first in self._repeated():
            owner = np.searchsorted(starts, first, side="right") - 1
            away = owner != np.searchsorted(starts, repeated, side="right") - 1
            rows.append(repeated[away])
            owners.append(owner[away])
        row, owner = np.concatenate(rows), np.concatenate(owners)
        order = np.argsort(row)
        row, owner = row[order], owner[order]
        places = self.places(row)
        by_owner = np.argsort(owner, kind="stable")
        return owner[by_owner], places[by_owner], places[:, 1]

    def _repeated(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields, of each bucket, rows whose digest a row before has, and the first such row."""
        for file in self._buckets:
            digests, rows = np.fromfile(file, np.uint64).reshape(-1, 2).T
            order = np.argsort(digests, kind="stable")
            digests, rows = digests[order], rows[order].astype(np.int64)
            again = np.zeros(len(rows), bool)
            again[1:] = digests[1:] == digests[:-1]
            first = np.maximum.accumulate(np.where(again, 0, np.arange(len(rows))))
            yield rows[again], rows[first[again]]
