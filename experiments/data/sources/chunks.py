"""Writes all chunks of a source to shards, in parallel; those that are there are left alone."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.data.sources.read_plan import ReadPlan
from experiments.data.sources.shards import (
    ChunkResult,
    WriteConfig,
    read_result,
    result_name,
    write_chunk,
)

PLAIN_LINE_SECONDS = 10.0


def write_chunks(
    plan: ReadPlan, write_config: WriteConfig, folder: Path, workers: int
) -> list[ChunkResult]:
    """Returns the results of all chunks, in their order."""
    there = {file.name for file in folder.iterdir()}
    done = {
        i: read_result(folder, i) if result_name(i) in there else None
        for i in range(len(plan.chunks))
    }
    left = [i for i, result in done.items() if result is None]
    with _Progress(len(plan.chunks), len(plan.chunks) - len(left)) as progress:
        for i, written in _run_all(plan, write_config, folder, left, min(workers, len(left))):
            done[i] = written
            progress.add(written)
    return [done[i] for i in range(len(plan.chunks))]


def _run_all(
    plan: ReadPlan, write_config: WriteConfig, folder: Path, numbers: list[int], workers: int
) -> Iterator[tuple[int, ChunkResult]]:
    def job(i: int) -> tuple[Any, ...]:
        return plan.config, plan.chunks[i], write_config, folder, i

    if workers <= 1:
        for i in numbers:
            yield i, write_chunk(*job(i))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as pool:
        futures = {pool.submit(write_chunk, *job(i)): i for i in numbers}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


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
