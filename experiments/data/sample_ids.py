"""Which examples each step learned from, in WORKDIR/ids.

`process-N.jsonl` has a line for each step that process N began: {"step": 7, "processes": 2,
"ids": ["0:512", ...]}. An id is SOURCE:ROW, where `sources.json` lists the sources. Process N of P
has the examples N, N + P, ... of a batch. A step's line is in the file before the step is taken,
so before any checkpoint that holds it; a resumed run drops the lines of steps that it takes again.
In a bucket, where nothing is appended, `process-N.FIRST.jsonl` has the lines since a checkpoint,
from step FIRST on, and is written before the next one.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.paths import as_path, is_remote
from experiments.data.mixture import Mixture
from experiments.data.source import Split

FOLDER, SOURCES = "ids", "sources.json"
ROW = "sample_row"  # of the split that is drawn from; int64[rows] in a batch

Batch = dict[str, np.ndarray]


class SampleIds:
    """The file of one process; the first process makes it before the others make theirs."""

    def __init__(
        self,
        workdir: Path,
        split: Split | Mixture,
        first_step: int,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        """first_step: lines of steps after it are dropped from the files of all processes."""
        self._split, self._first_step, self._processes = split, first_step, process_count
        self._folder = folder = workdir / FOLDER
        self._name = f"process-{process_index}"
        self._held: list[dict[str, Any]] = []  # lines that are to be written to a bucket
        if process_index:
            return
        for file in sorted(folder.glob("process-*.jsonl")):
            taken = [line for line in _read_lines(file) if line["step"] <= first_step]
            replace_file(file, "".join(json.dumps(line) + "\n" for line in taken))
        text = json.dumps(split.sources, ensure_ascii=False, indent=1)
        replace_file(folder / SOURCES, text + "\n")

    def log(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches without their row numbers, each after its line is written."""
        with contextlib.ExitStack() as stack:
            out = None
            if not is_remote(self._folder):
                file = self._folder / f"{self._name}.jsonl"
                out = stack.enter_context(file.open("a", encoding="utf-8"))
            for step in itertools.count(self._first_step + 1):
                batch = dict(next(stream))
                places = [self._split.locate(int(row)) for row in batch.pop(ROW)]
                ids = [f"{source}:{row}" for source, row in places]
                line = {"step": step, "processes": self._processes, "ids": ids}
                if out is None:
                    self._held.append(line)
                else:
                    out.write(json.dumps(line) + "\n")
                    out.flush()
                yield batch

    def flush(self) -> None:
        """Writes to a bucket what is not there yet."""
        if self._held:
            first = self._held[0]["step"]
            text = "".join(json.dumps(line) + "\n" for line in self._held)
            replace_file(self._folder / f"{self._name}.{first:08d}.jsonl", text)
            self._held = []


def read_ids(workdir: str | Path) -> dict[int, list[str]]:
    """Step -> ids of its whole batch, in order, from the files of all processes.

    A step that some process has no line of, or two lines, raises InputError.
    """
    folder = as_path(workdir) / FOLDER
    steps: dict[int, dict[int, Mapping[str, Any]]] = {}
    for file in sorted(folder.glob("process-*.jsonl")):
        process = int(file.stem.partition("-")[2].partition(".")[0])
        for line in _read_lines(file):
            lines = steps.setdefault(line["step"], {})
            if process in lines:
                raise InputError(f"{file}: step {line['step']} has two lines; expected one")
            lines[process] = line
    found = {}
    for step, lines in sorted(steps.items()):
        expected = set(range(next(iter(lines.values()))["processes"]))
        if lines.keys() != expected:
            raise InputError(
                f"{folder}: step {step} has lines of processes {sorted(lines)}; expected those of "
                f"{sorted(expected)}"
            )
        rows = zip(*(lines[process]["ids"] for process in sorted(lines)), strict=True)
        found[step] = [name for row in rows for name in row]
    return found


def _read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of a file; one that a crash cut short is left out."""
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]
