"""Shards are opened when they are read, and few of them are open at a time."""

import os
import subprocess
import sys
import threading

import pytest
from array_record.python.array_record_module import ArrayRecordWriter

from experiments.data.shard_readers import ReaderPool, ShardReaders

SHARDS, RECORDS = 40, 7
LENGTHS = [5, 0, *(RECORDS,) * (SHARDS - 2)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The files of forty shards of seven records; the first has five, the second none."""
    folder = tmp_path_factory.mktemp("shards")
    for number in range(SHARDS):
        writer = ArrayRecordWriter(str(folder / f"{number}"), "group_size:1")
        for record in range(LENGTHS[number]):
            writer.write(f"{number}/{record}".encode())
        writer.close()
    return [str(folder / f"{number}") for number in range(SHARDS)]


def opened(shards, limit):
    """Readers of all, and their pool."""
    pool = ReaderPool(limit)
    return ShardReaders(LENGTHS, lambda i: shards[i], pool), pool


EXPECTED = [f"{shard}/{i}".encode() for shard, count in enumerate(LENGTHS) for i in range(count)]


def open_files(shards):
    """Counts how many of this process's files are shards."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            found += os.readlink(f"/proc/self/fd/{number}") in shards
        except OSError:
            continue
    return found


def test_records_in_any_order_with_few_files(shards, rng):
    readers, pool = opened(shards, 4)
    assert len(readers) == len(EXPECTED) and readers.shard_count == SHARDS
    for index in rng.permutation(len(readers)):
        assert readers[index] == EXPECTED[index]
        assert len(pool) <= 4 and open_files(shards) <= 4
    for wrong in (-1, len(readers)):
        with pytest.raises(IndexError):
            readers[wrong]


def test_the_reader_used_last_stays(shards):
    pool = ReaderPool(2)
    first = pool.reader(0, 0, shards[0])
    pool.reader(0, 1, shards[1])
    assert pool.reader(0, 0, shards[0]) is first
    pool.reader(0, 2, shards[2])  # in place of 1
    assert pool.reader(0, 0, shards[0]) is first


def test_a_reader_in_use_is_not_closed(shards):
    pool = ReaderPool(1)
    held = pool.reader(0, 3, shards[3])
    pool.reader(0, 4, shards[4])
    assert held.read([2]) == [b"3/2"] and open_files(shards) == 2
    del held
    assert open_files(shards) == 1


def test_threads_read_together(shards, rng):
    readers, _ = opened(shards, 3)
    wrong = []

    def read(numbers):
        wrong.extend(i for i in numbers if readers[i] != EXPECTED[i])

    threads = [
        threading.Thread(target=read, args=(rng.integers(0, len(readers), 300),)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and open_files(shards) <= 3


def test_readers_share_a_pool_and_leave_it(shards):
    a, pool = opened(shards, 8)
    b = ShardReaders(LENGTHS, lambda i: shards[i], pool)
    for readers in (a, b):
        for index in range(0, len(readers), RECORDS):
            readers[index]
    assert len(pool) == 8
    del a
    assert len(pool) <= 8
    b[0]
    del b, readers
    assert len(pool) == 0 and open_files(shards) == 0


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[1])))
from array_record.python.array_record_module import ArrayRecordWriter
from experiments.data.shard_readers import ShardReaders, shared_pool
file = sys.argv[2]
for i in range(300):
    writer = ArrayRecordWriter(f"{file}-{i}", "group_size:1")
    writer.write(str(i).encode())
    writer.close()
readers = ShardReaders([1] * 300, lambda i: f"{file}-{i}")
assert [int(readers[i]) for i in range(300)] == list(range(300))
print(shared_pool().limit, len(shared_pool()), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize("hard,readers,opened", [(256, 128, 128), (700, 350, 300)])
def test_the_limit_of_files_is_raised_and_kept(hard, readers, opened, tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", LIMITED, str(hard), str(tmp_path / "shard")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.split() == [str(readers), str(opened), str(hard)], found.stderr
