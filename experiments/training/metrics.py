"""Writes the metrics of a run: a JSONL file, TensorBoard, trackers, and the console."""

from __future__ import annotations

import io
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from clip_jax.atomic_file import replace_file
from clip_jax.paths import as_path, is_remote, upload
from experiments.training.interrupts import HeldInterrupts
from experiments.training.trackers import BOARD, image_file, start_trackers

FILE_NAME = "metrics.jsonl"
UPLOAD_SECONDS = 30.0  # between two writings to a bucket
PLAIN_LINE_SECONDS = 10.0  # between lines of progress where there is no terminal


class MetricsWriter:
    """Appends to `metrics.jsonl`, one object a line, and to TensorBoard event files.

    Objects in a bucket cannot be appended to: there both are written whole, from memory and from a
    temporary folder, every UPLOAD_SECONDS, before each checkpoint and at the end.
    """

    def __init__(
        self,
        folder: Path,
        first_step: int,
        config: Mapping[str, Any] | None = None,
        report_to: tuple[str, ...] = (BOARD,),
    ) -> None:
        """Drops lines of steps after `first_step`, which a resumed run takes again.

        config: by dotted name, shown beside the metrics. report_to: `TrainConfig.report_to`.
        """
        # Imports PyTorch where there is one, which takes seconds.
        from tensorboardX import SummaryWriter

        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_metrics(folder) if row["step"] <= first_step]
        self._upload = _Upload(folder, rows) if is_remote(folder) else None
        replace_file(folder / FILE_NAME, "".join(json.dumps(row) + "\n" for row in rows))
        if self._upload is None:
            self._file = (folder / FILE_NAME).open("a", encoding="utf-8")
        else:
            self._file = self._upload.lines
        board = folder / BOARD if self._upload is None else self._upload.board
        # A file's name has the system's time, which may come again.
        self._board = SummaryWriter(
            str(board),
            purge_step=first_step + 1,
            filename_suffix=f".{first_step}",
            write_to_disk=BOARD in report_to,
        )
        if config is not None and not first_step:
            rows = (f"| {key} | {value} |" for key, value in config.items())
            self._board.add_text("config", "\n".join(["| field | value |", "|---|---|", *rows]))
        self._trackers = start_trackers(report_to, folder, config or {})
        # Of a run's events the differences count: they are those of a clock that only goes forward.
        self._offset = time.time() - time.monotonic()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """values: names such as "train/loss" or "validation/accuracy" to numbers."""
        line = json.dumps({"step": step, **values}) + "\n"
        now = self._offset + time.monotonic()
        with HeldInterrupts():  # all of a row or nothing
            self._file.write(line)
            self._file.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step, walltime=now)
            for tracker in self._trackers:
                tracker.write(step, values)
            if self._upload is not None and self._upload.is_due:
                self.flush()

    def write_image(self, step: int, name: str, png: bytes) -> Path:
        """Writes an image file in the run's folder, and shows it; returns its path."""
        file = self._folder / image_file(step, name)
        replace_file(file, png)
        image = Image.open(io.BytesIO(png)).convert("RGB")
        now = self._offset + time.monotonic()
        self._board.add_image(name, np.asarray(image), step, walltime=now, dataformats="HWC")
        for tracker in self._trackers:
            tracker.write_image(step, name, image)
        return file

    def flush(self) -> None:
        """Writes to a bucket what is not there yet."""
        if self._upload is not None:
            self._board.flush()
            self._upload()

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()
        self._board.close()
        if self._upload is not None:
            self._upload.close()
        self._file.close()


class _Upload:
    """Writes a run's metrics to its folder in a bucket. lines: of metrics.jsonl, all of them."""

    def __init__(self, folder: Path, rows: list[dict[str, float]]) -> None:
        self._folder = folder
        self._temporary = tempfile.TemporaryDirectory(prefix="rudolph-jax-")
        self.board = Path(self._temporary.name)
        self.lines = io.StringIO()
        self.lines.writelines(json.dumps(row) + "\n" for row in rows)
        self._next = time.monotonic() + UPLOAD_SECONDS

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def __call__(self) -> None:
        began = time.monotonic()
        replace_file(self._folder / FILE_NAME, self.lines.getvalue())
        for file in sorted(self.board.iterdir()):
            upload(file, self._folder / BOARD / file.name)
        now = time.monotonic()
        # Of a long run the files are large: they take two hundredths of its time at most.
        self._next = now + max(UPLOAD_SECONDS, 50 * (now - began))

    def close(self) -> None:
        self()
        self._temporary.cleanup()


def read_metrics(folder: str | Path) -> list[dict[str, float]]:
    """The rows that a run has written so far; a line that a crash cut short is left out."""
    file = as_path(folder) / FILE_NAME
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def last_metrics(folder: str | Path) -> dict[str, float]:
    """The newest value of each metric that a run has written."""
    newest: dict[str, float] = {}
    for row in read_metrics(folder):
        newest |= row
    newest.pop("step", None)
    return newest


class NullMetricsWriter:
    """A writer for a process that is not the first."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def write_image(self, step: int, name: str, png: bytes) -> Path:
        raise AssertionError("images are the first process's")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


class Progress:
    """A bar with loss, examples a second and time left on a terminal; plain lines elsewhere."""

    def __init__(
        self,
        first_step: int,
        steps: int,
        batch_size: int,
        stream: TextIO = sys.stderr,
        quiet: bool = False,
    ) -> None:
        """quiet: print nothing, on a process that is not the first."""
        self._quiet = quiet
        self._steps, self._batch_size, self._stream = steps, batch_size, stream
        self._first, self._start = first_step, time.monotonic()
        self._told = self._start
        self._compiled = False
        self._bar = None
        if stream.isatty() and not quiet:
            self._bar = tqdm(total=steps, initial=first_step, unit="step", file=stream, leave=True)

    def update(self, step: int, loss: float) -> None:
        """step: how many are done."""
        now = time.monotonic()
        if not self._compiled:
            # The first step compiles: rates count from its end, or the time left would be hours.
            self._compiled, self._first, self._start, self._told = True, step, now, now
        if self._bar is not None:
            rate = self.examples_per_second(step, now)
            self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} examples/s", refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._told >= PLAIN_LINE_SECONDS or step == self._steps:
            self._told = now
            rate = self.examples_per_second(step, now)
            left = (self._steps - step) * self._batch_size / max(rate, 1e-9)
            self.log(
                f"step {step}/{self._steps}  loss {loss:.4f}  {rate:.0f} examples/s  "
                f"{int(left) // 60}:{int(left) % 60:02d} left"
            )

    def examples_per_second(self, step: int, now: float) -> float:
        """Since the first step, which compiles, was done."""
        return (step - self._first) * self._batch_size / max(now - self._start, 1e-9)

    def log(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=self._stream)
        elif not self._quiet:
            print(line, file=self._stream, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
