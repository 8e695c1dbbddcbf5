"""Writes all chunks of a source to shards, in parallel; those that are there are left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clip_jax.errors import InputError
from clip_jax.paths import is_remote
from experiments.data.sources.read_plan import ReadPlan
from experiments.data.sources.shards import (
    ChunkResult,
    WriteConfig,
    read_result,
    result_name,
    write_chunk,
)

PLAIN_LINE_SECONDS = 10.0
AHEAD = 3  # chunks for each process, with the one that it writes
READ_AT_ONCE, READ_AHEAD = 16, 256  # results in a bucket


def missing_chunks(plan: ReadPlan, folder: Path) -> list[int]:
    """Returns the numbers of chunks that have no result in the folder."""
    there = {file.name for file in folder.iterdir()}
    return [i for i in range(len(plan.chunks)) if result_name(i) not in there]


def show_progress(written: Iterable[ChunkResult], chunks: int, left: int) -> None:
    """Takes results as they come, and shows how far of all chunks that is. left: how many come."""
    with _Progress(chunks, chunks - left) as progress:
        for result in written:
            progress.add(result)


def run_processes(
    plan: ReadPlan, numbers: Sequence[int], write_config: WriteConfig, folder: Path, workers: int
) -> Iterator[ChunkResult]:
    """Yields the results of chunks as they are written by processes of this machine."""

    def job(i: int) -> tuple[Any, ...]:
        return plan.config, plan.chunks[i], write_config, folder, i

    workers = min(workers, len(numbers))
    if workers <= 1:
        for i in numbers:
            yield write_chunk(*job(i))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as pool:
        waiting = iter(numbers)
        # No more than this, so that the chunks of all the rest are not held as messages.
        running = {pool.submit(write_chunk, *job(i)) for i in islice(waiting, AHEAD * workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(write_chunk, *job(i)) for i in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def read_results(folder: Path, numbers: Sequence[int]) -> Iterator[ChunkResult]:
    """Yields the results of chunks in this order, a few of which are in memory."""
    if not is_remote(folder):
        yield from (_read_result(folder, i) for i in numbers)
        return
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:  # each is a request
        for start in range(0, len(numbers), READ_AHEAD):
            some = numbers[start : start + READ_AHEAD]
            yield from pool.map(lambda i: _read_result(folder, i), some)


def _read_result(folder: Path, number: int) -> ChunkResult:
    result = read_result(folder, number)
    if result is None:
        raise InputError(f"{folder / result_name(number)}: was removed; prepare again")
    return result


def _follow_parent() -> None:
    """Interrupts are for the parent, which lets chunks end; without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


class _Progress:
    """A bar on a terminal, plain lines elsewhere."""

    def __init__(self, chunks: int, done: int) -> None:
        self._chunks, self._done, self._kept, self._rejected = chunks, done, 0, 0
        self._last_line = time.monotonic()
        self._bar = tqdm(
            total=chunks, initial=done, desc="preparing", unit="chunk", disable=None
        )
        if done and self._bar.disable:
            self._say(f"{done} of {chunks} chunks are there already")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, written: ChunkResult) -> None:
        self._done += 1
        self._kept += sum(count for _, _, count in written.shards)
        self._rejected += len(written.rejected)
        self._bar.set_postfix_str(f"{self._rejected} rejected", refresh=False)
        self._bar.update()
        now = time.monotonic()
        late = now - self._last_line >= PLAIN_LINE_SECONDS or self._done == self._chunks
        if self._bar.disable and late:
            self._last_line = now
            self._say(
                f"chunk {self._done}/{self._chunks}  {self._kept} records  "
                f"{self._rejected} rejected"
            )

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
