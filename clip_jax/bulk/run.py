"""Runs bulk work: reads items in threads, computes batches on all devices, writes pieces in order.

A batch holds items of one piece, in their order, so that it has the same rows on any number of
devices, parts and processes. Each device has a copy of the model and computes whole batches.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import json
import os
import queue
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from clip_jax.atomic_file import replace_file
from clip_jax.bulk import output
from clip_jax.bulk.items import Item, Record, Source
from clip_jax.bulk.pieces import Piece, Pieces
from clip_jax.errors import InputError, PartialResultError
from clip_jax.part import Part
from clip_jax.paths import as_path, is_remote
from clip_jax.progress import progress_bar
from clip_jax.text import escape

REJECTED = "rejected.jsonl"
READERS = max(8, os.cpu_count() or 1)  # threads that read and decode items
BATCHES_AHEAD = 3  # for each device, with the one that it computes
SECONDS_BETWEEN_LINES = 10.0  # of progress, where there is no terminal
SECONDS_BETWEEN_LOOKS = 0.5  # at pieces that another process holds
# Errors of one item; any other error of the system ends the run, which the same command resumes.
ITEM_ERRORS = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the result. members: its sample, file by extension; None: it has none."""

    columns: Mapping[str, Any]
    members: Mapping[str, bytes] | None = None


class Task:
    """Computes rows of items. columns: name -> type (`output.write_rows`).

    models: one a device. batch_items: how many items one computes at once.
    writes_rows: whether there are Parquet files.
    """

    columns: Mapping[str, str]
    models: Sequence[Any]
    batch_items: int
    writes_rows: bool

    def prepare(self, item: Item, record: Record) -> Any:
        """Returns what `compute` takes of an item, in a thread; InputError rejects the item."""
        raise NotImplementedError

    def compute(self, model: Any, items: Sequence[Any]) -> Sequence[list[Row] | str]:
        """Returns the rows of each item, or why there are none."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class BulkReport:
    """Counts the items of this part: read = done + rejected + ignored.

    reasons: rejected items by reason. rows, samples: that were written. computed: items that this
    process did. is_whole: whether the pieces of all parts are finished.
    """

    read: int
    done: int
    rejected: int
    ignored: int
    reasons: Mapping[str, int]
    rows: int
    samples: int
    computed: int
    seconds: float
    is_whole: bool


def run_bulk(
    task: Task,
    source: Source,
    out: str | Path,
    settings: Mapping[str, Any],
    *,
    piece_items: int,
    part: Part | None = None,
    quiet: bool = False,
) -> BulkReport:
    """Does the unfinished pieces of a part of the work, or of all of it.

    out: folder of the results, in which all processes meet. settings: all that decides them, plain
    values; others than the folder's raise InputError.

    Several processes with the same part, or without one, share its pieces; at the end each waits
    for those that another one holds, and does them if that one dies.
    """
    place = as_path(out)
    if is_remote(place) and part is None:
        raise InputError(
            f"{place}: a bucket has no locks, by which processes could share the work; give "
            "--part=K/N, 0/1 for a single process"
        )
    if task.writes_rows:
        output.check_packages()
    pieces = Pieces(place, source, piece_items, part or Part(0, 1))
    if not is_remote(place):
        place.mkdir(parents=True, exist_ok=True)
    pieces.begin(settings)
    with _Worker(task, quiet) as worker:
        begin = time.monotonic()
        while worker.do_pieces(pieces, source):
            time.sleep(SECONDS_BETWEEN_LOOKS)
        seconds = time.monotonic() - begin
    return _report(pieces, worker.computed, seconds)


def check_report(report: BulkReport, out: str | Path, part: Part | None, quiet: bool) -> None:
    """Prints a report's lines; PartialResultError where something was rejected."""
    share = f"part {part}: " if part is not None else ""
    rate = f", {report.computed / report.seconds:.1f} items/s" if report.computed else ""
    if not quiet:
        print(
            f"{escape(str(out))}: {share}read {report.read} = {report.done} done + "
            f"{report.rejected} rejected + {report.ignored} ignored; {report.rows} rows"
            + (f", {report.samples} samples" if report.samples else "")
            + f"; {report.computed} items now{rate}"
        )
        for why, count in report.reasons.items():
            print(f"  {count} {escape(why)}")
        if not report.is_whole:
            print("  other parts are not finished")
    if report.rejected:
        where = f"each in {REJECTED}" if report.is_whole else f"{REJECTED} comes with the last part"
        raise PartialResultError(
            f"{escape(str(out))}: {report.rejected} of {report.read} items were rejected; {where}"
        )


class _Worker:
    """Computes pieces, with threads that end with the context."""

    def __init__(self, task: Task, quiet: bool) -> None:
        self.computed = 0
        self._task = task
        self._models: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for model in task.models:
            self._models.put(model)
        self._ahead = BATCHES_AHEAD * len(task.models)
        self._batches = ThreadPoolExecutor(self._ahead)
        self._readers = ThreadPoolExecutor(READERS)
        self._bar = progress_bar(None, "items", quiet=quiet)
        self._prints = bool(self._bar.disable) and not quiet
        self._begin = self._printed = time.monotonic()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.shutdown(cancel_futures=True)
        self._readers.shutdown(cancel_futures=True)
        self._bar.close()

    def do_pieces(self, pieces: Pieces, source: Source) -> int:
        """Does all pieces that no other process holds; returns the number of the others."""
        held = 0
        pieces.refresh()
        for group in pieces.groups():
            with source.open(group) as listing:
                for piece, numbers in pieces.unfinished(group, listing.count):
                    with pieces.claim(piece) as mine:
                        if not mine:
                            held += not pieces.is_finished(piece)
                            continue
                        items = listing.items(numbers)
                        ignored = 0 if piece.number else listing.ignored
                        pieces.finish(piece, self._do(pieces.out, piece, items, ignored))
        pieces.refresh()
        return held

    def _do(self, out: Path, piece: Piece, items: Sequence[Item], ignored: int) -> dict[str, Any]:
        """Computes and writes a piece; returns its report."""
        task, rejected, rows = self._task, [], []
        size = task.batch_items
        batches = (items[start : start + size] for start in range(0, len(items), size))
        shard_file = out / output.SHARDS / f"{piece.name}.tar"
        with output.shard_writer(shard_file) as shard:
            for batch, found in self._compute(batches):
                for item, result in zip(batch, found, strict=True):
                    if isinstance(result, str):
                        rejected.append({"key": item.key, "why": result})
                        continue
                    for number, row in enumerate(result):
                        rows.append(row.columns)
                        if row.members is not None:
                            name = f"{item.name}-{number}" if number else item.name
                            shard.add(name, row.members)
                self._note(len(batch))
            samples = shard.samples
        if task.writes_rows:
            output.write_rows(out / output.ROWS / f"{piece.name}.parquet", rows, task.columns)
        return {
            "items": len(items), "rejected": rejected, "ignored": ignored, "rows": len(rows),
            "samples": samples,
        }  # fmt: skip

    def _compute(
        self, batches: Iterable[Sequence[Item]]
    ) -> Iterator[tuple[Sequence[Item], list[list[Row] | str]]]:
        """Yields batches with their results, in order, some of the next under way."""
        pending: collections.deque[tuple[Sequence[Item], Future]] = collections.deque()
        for batch in batches:
            pending.append((batch, self._batches.submit(self._batch, batch)))
            if len(pending) == self._ahead:
                items, future = pending.popleft()
                yield items, future.result()
        for items, future in pending:
            yield items, future.result()

    def _batch(self, items: Sequence[Item]) -> list[list[Row] | str]:
        found = list(self._readers.map(self._prepare, items))
        good = [each for each in found if not isinstance(each, _Unusable)]
        model = self._models.get() if good else None
        try:
            rows = iter(self._task.compute(model, good) if good else ())
        finally:
            if model is not None:
                self._models.put(model)
        return [each.why if isinstance(each, _Unusable) else next(rows) for each in found]

    def _prepare(self, item: Item) -> Any:
        try:
            return self._task.prepare(item, item.read())
        except InputError as error:
            return _Unusable(str(error).removeprefix("image bytes: "))
        except OSError as error:
            if error.errno not in ITEM_ERRORS:
                raise
            return _Unusable(error.strerror or str(error))

    def _note(self, items: int) -> None:
        self.computed += items
        self._bar.update(items)
        now = time.monotonic()
        if self._prints and now - self._printed >= SECONDS_BETWEEN_LINES:
            rate = self.computed / (now - self._begin)
            print(f"{self.computed} items, {rate:.1f} items/s", flush=True)
            self._printed = now


@dataclasses.dataclass(frozen=True)
class _Unusable:
    why: str


def _report(pieces: Pieces, computed: int, seconds: float) -> BulkReport:
    """Adds up what the pieces of this part report; writes rejected.jsonl when all are finished."""
    counts: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()
    for report in pieces.reports():
        counts["items"] += report["items"]
        counts["rejected"] += len(report["rejected"])
        for name in ("ignored", "rows", "samples"):
            counts[name] += report[name]
        reasons.update(line["why"].partition(":")[0] for line in report["rejected"])
    is_whole = pieces.are_all_finished()
    if is_whole:
        lines = [
            escape(json.dumps(line, ensure_ascii=False)) + "\n"
            for report in pieces.reports(of_all=True)
            for line in report["rejected"]
        ]
        if lines:
            replace_file(pieces.out / REJECTED, "".join(lines))
        if not is_remote(pieces.out):
            with contextlib.suppress(OSError):  # not empty: another process looks at a piece
                (pieces.out / "locks").rmdir()
    return BulkReport(
        read=counts["items"] + counts["ignored"],
        done=counts["items"] - counts["rejected"],
        rejected=counts["rejected"],
        ignored=counts["ignored"],
        reasons=reasons,
        rows=counts["rows"],
        samples=counts["samples"],
        computed=computed,
        seconds=seconds,
        is_whole=is_whole,
    )
