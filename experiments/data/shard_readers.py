"""Random access to the records of many ArrayRecord shards, few of which are open at a time."""

from __future__ import annotations

import functools
import itertools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.data.open_files import raise_file_limit

# A reader holds the index of its shard: about 15 kB for 4,096 records, 50 kB for 16,000.
MOST_READERS = 4096
# Of the files that a process may open: the rest is for sockets, checkpoints and libraries.
SHARE_OF_FILES = 0.5


class ReaderPool:
    """Open readers, at most `limit`: the one that was not used for longest is closed."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._open: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def reader(self, owner: int, index: int, file: str) -> Any:
        """Returns the reader of a shard of an owner, opened unless it is."""
        key = owner, index
        with self._lock:
            if (reader := self._open.get(key)) is not None:
                self._open.move_to_end(key)
                return reader
        opened = _open(file)  # takes longer than a read, so other threads do not wait for it
        with self._lock:
            reader = self._open.setdefault(key, opened)
            self._open.move_to_end(key)
            while len(self._open) > self.limit:
                # Its file is closed once no thread holds it: one may be reading from it.
                self._open.popitem(last=False)
        return reader

    def close(self, owner: int) -> None:
        """Lets go of all readers of an owner."""
        with self._lock:
            for key in [key for key in self._open if key[0] == owner]:
                del self._open[key]


class ShardReaders:
    """`readers[i]` is record i of all shards in order, bytes; any threads may read."""

    _owners = itertools.count()

    def __init__(
        self,
        lengths: Sequence[int],
        path_of: Callable[[int], str],
        pool: ReaderPool | None = None,
    ) -> None:
        """lengths: the shards' numbers of records. path_of: a shard's file, by its number.

        pool: None: the one that all of a process share, as the limit of open files is a process's.
        """
        self._ends = np.cumsum(lengths, dtype=np.int64)
        self.path_of = path_of
        self._pool = shared_pool() if pool is None else pool
        self._owner = next(self._owners)
        weakref.finalize(self, self._pool.close, self._owner)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def shard_count(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard = int(np.searchsorted(self._ends, number, side="right"))
        start = int(self._ends[shard - 1]) if shard else 0
        reader = self._pool.reader(self._owner, shard, self.path_of(shard))
        return reader.read([number - start])[0]


@functools.cache
def shared_pool() -> ReaderPool:
    """Returns the pool of this process, made on first use."""
    return ReaderPool(most_readers())


def most_readers() -> int:
    """Returns how many shards a process may hold open, after raising its limit of open files."""
    return max(1, min(MOST_READERS, int(raise_file_limit() * SHARE_OF_FILES)))


def _open(file: str) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # As ArrayRecord's own data source has it: records are read one by one, none ahead.
    return ArrayRecordReader(
        file, options="readahead_buffer_size:0,", file_reader_buffer_size=32768
    )
