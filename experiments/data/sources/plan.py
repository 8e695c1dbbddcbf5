"""What is to be read of a source, and in which pieces."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments.data.sources.forms import FORMS, Form


@dataclasses.dataclass(frozen=True)
class Options:
    """How a source is read; "" leaves the choice to what lies there.

    source: file or folder, or a TFDS name under `data_dir`. form: one of FORMS. from_split: of a
    source that has several. table: the file that lists the records of a folder. piece_records: how
    many records a piece has at most where that can be chosen.
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
    piece_records: int = 4096

    @property
    def what(self) -> Form:
        return FORMS[self.form]

    @property
    def columns(self) -> dict[str, str]:
        """The column of each feature that the form has, "" where none was named."""
        return {name: getattr(self, column.field) for name, column in self.what.columns.items()}


@dataclasses.dataclass(frozen=True)
class Plan:
    """options: with nothing left open. files: [size in bytes, time of change in ns] by name.

    pieces: plain data, each for one call of `read`.
    """

    options: Options
    files: dict[str, list[int]]
    pieces: Sequence[Any]


def stamps(folder: Path, files: Iterable[Path]) -> dict[str, list[int]]:
    """By the names inside `folder`, what changes when a file is written anew."""
    found = {}
    for file in files:
        stat = file.stat()
        found[file.relative_to(folder).as_posix()] = [stat.st_size, stat.st_mtime_ns]
    return found
