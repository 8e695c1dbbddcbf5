"""All pieces of a source to shards, in parallel; those that are there already are left alone."""

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

from experiments.data.sources.plan import Plan
from experiments.data.sources.shards import Rules, Written, read_result, write_piece

PLAIN_LINE_SECONDS = 10.0


def write_pieces(plan: Plan, rules: Rules, folder: Path, workers: int) -> list[Written]:
    """The results of all pieces, in their order."""
    done = {i: read_result(folder, i) for i in range(len(plan.pieces))}
    left = [i for i, result in done.items() if result is None]
    with _Progress(len(plan.pieces), len(plan.pieces) - len(left)) as progress:
        for i, written in _run_all(plan, rules, folder, left, min(workers, len(left))):
            done[i] = written
            progress.add(written)
    return [done[i] for i in range(len(plan.pieces))]


def _run_all(
    plan: Plan, rules: Rules, folder: Path, numbers: list[int], workers: int
) -> Iterator[tuple[int, Written]]:
    def job(i: int) -> tuple[Any, ...]:
        return plan.options, plan.pieces[i], rules, folder, i

    if workers <= 1:
        for i in numbers:
            yield i, write_piece(*job(i))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_follow_parent) as pool:
        futures = {pool.submit(write_piece, *job(i)): i for i in numbers}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _follow_parent() -> None:
    """Interrupts are for the parent, which lets pieces end; without it there is nothing to do."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def leave() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()


class _Progress:
    """A bar on a terminal, plain lines elsewhere."""

    def __init__(self, pieces: int, done: int) -> None:
        self._pieces, self._done, self._kept, self._rejected = pieces, done, 0, 0
        self._told = time.monotonic()
        self._bar = tqdm(
            total=pieces, initial=done, desc="preparing", unit="piece", disable=None
        )
        if done and self._bar.disable:
            self._say(f"{done} of {pieces} pieces are there already")

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def add(self, written: Written) -> None:
        self._done += 1
        self._kept += sum(count for _, _, count in written.shards)
        self._rejected += len(written.rejected)
        self._bar.set_postfix_str(f"{self._rejected} rejected", refresh=False)
        self._bar.update()
        now = time.monotonic()
        late = now - self._told >= PLAIN_LINE_SECONDS or self._done == self._pieces
        if self._bar.disable and late:
            self._told = now
            self._say(
                f"piece {self._done}/{self._pieces}  {self._kept} records  "
                f"{self._rejected} rejected"
            )

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
