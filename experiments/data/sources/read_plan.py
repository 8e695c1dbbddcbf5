"""How a source is read, and in which chunks."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from clip_jax.paths import as_path
from experiments.data.sources.schema import SCHEMAS, RecordSchema


@dataclasses.dataclass(frozen=True)
class SourceConfig:
    """Say how to read a source; "" means: detect it.

    source: file or folder, or a TFDS name under `data_dir`. form: one of SCHEMAS. from_split: of a
    source that has several. table: the file that lists the records of a folder. group_by: what the
    records of a group share ("folder", "prefix" or a column; `groups.py`). chunk_records: how many
    records a chunk has at most where that can be chosen.
    """

    source: str
    kind: str = ""
    form: str = "captions"
    image_column: str = ""
    caption_column: str = ""
    question_column: str = ""
    answer_column: str = ""
    context_column: str = ""
    from_split: str = "train"
    table: str = ""
    data_dir: str = ""
    group_by: str = ""
    chunk_records: int = 4096

    @property
    def path(self) -> Path:
        """Returns where the source is; another scheme than `gs://` raises InputError."""
        return as_path(self.data_dir) / self.source if self.data_dir else as_path(self.source)

    @property
    def schema(self) -> RecordSchema:
        return SCHEMAS[self.form]

    @functools.cached_property
    def columns(self) -> dict[str, str]:
        """Returns the column of each feature that the form has, "" where none was named."""
        return {name: getattr(self, column.field) for name, column in self.schema.columns.items()}


@dataclasses.dataclass(frozen=True)
class ReadPlan:
    """options: with nothing left open. files: [size in bytes, time of change in ns] by name.

    chunks: plain data, each for one call of `read`.
    """

    config: SourceConfig
    files: dict[str, list[int]]
    chunks: Sequence[Any]


def file_fingerprints(folder: Path, files: Iterable[Path]) -> dict[str, list[int]]:
    """Returns, by the names inside `folder`, what changes when a file is written again."""
    found = {}
    for file in files:
        stat = file.stat()
        found[file.relative_to(folder).as_posix()] = [stat.st_size, stat.st_mtime_ns]
    return found
