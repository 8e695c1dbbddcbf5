"""Parquet files: a file, or a folder of them as the Hugging Face hub stores a data set."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.paths import is_remote
from clip_jax.system_folders import is_system
from clip_jax.text import check_encodable, parse_json
from experiments.data.sources.arrow_package import (
    import_arrow,
    read_batch,
    runs_of,
    stored_columns,
)
from experiments.data.sources.columns import choose_columns, find_column, image_bytes
from experiments.data.sources.labels import (
    LabelledRows,
    LabelSource,
    known_class_names,
    resolve_labels,
)
from experiments.data.sources.read_plan import ReadPlan, SourceConfig, file_fingerprints
from experiments.data.sources.records import BadRecord, Candidate, Rejected
from experiments.data.sources.schema import LABELS

UNIT = "rows"
ROWS_AT_ONCE = 64  # whose images are in memory together
# As the hub names them: data/train-00000-of-00004.parquet, maybe with a hash before the suffix.
HUB_NAME = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet")

# File, row groups, number of the first row; None for a file that cannot be read.
Chunk = tuple[str, list[int] | None, int]


def matches(source: Path) -> bool:
    return source.suffix == ".parquet" if source.is_file() else any(source.rglob("*.parquet"))


def plan(config: SourceConfig) -> ReadPlan:
    """Chunks are runs of row groups."""
    import_arrow("pyarrow.parquet")  # where it is not installed no file is damaged
    folder, files = _files(config)
    chunks: list[Chunk] = []
    names: list[str] | None = None
    for file in files:
        name = file.relative_to(folder).as_posix()
        check_encodable(name, "file")  # pyarrow takes names as UTF-8
        try:
            with _opened(file) as opened:
                names = names or opened.schema_arrow.names
                rows = _group_sizes(opened)
        except InputError:
            chunks.append((name, None, 0))
            continue
        chunks += [(name, groups, row) for groups, row in runs_of(rows, config.chunk_records)]
    if names is None:
        raise InputError(f"{config.source}: none of its files can be read as Parquet")
    config = choose_columns(names, config, config.source)
    return ReadPlan(config, file_fingerprints(folder, files), chunks)


def read(config: SourceConfig, chunk: Chunk) -> Iterator[Candidate | Rejected]:
    source = config.path
    folder = source if source.is_dir() else source.parent
    name, groups, row = chunk
    end = row
    try:
        with _opened(folder / name) as opened:
            end += sum(opened.metadata.row_group(group).num_rows for group in groups or ())
            # Only these leave the disk.
            wanted = stored_columns(opened.schema_arrow.names, config)
            for batch in opened.iter_batches(ROWS_AT_ONCE, groups, wanted, use_threads=False):
                yield from read_batch(batch, config, folder, name, row)
                row += batch.num_rows
    except InputError as error:
        reason = " ".join(str(error.__cause__).split())
        why = f"rows from here on cannot be read: {reason}"
        yield Rejected({"file": name, "row": row}, why, max(end - row, 1))


def _files(config: SourceConfig) -> tuple[Path, list[Path]]:
    """Return the files of `from_split` alone, where their names tell splits."""
    source = config.path
    if source.is_file():
        return source.parent, [source]
    files = sorted(source.rglob("*.parquet"))
    if not files:
        raise InputError(f"{source}: no *.parquet here")
    splits = splits_by_name(files)
    if splits:
        if config.from_split not in splits:
            known = ", ".join(sorted(splits))
            raise InputError(
                f"{source}: has no split {config.from_split!r}; say --from-split, one of {known}"
            )
        files = splits[config.from_split]
        folders = sorted({str(file.parent.relative_to(source)) for file in files})
        if len(folders) > 1:
            raise InputError(
                f"{source}: has split {config.from_split!r} in several folders; name one as "
                f"SOURCE: {', '.join(folders)}"
            )
    return source, files


def label_splits(folder: Path) -> list[str]:
    """Returns the splits that the files' names tell, as the hub stores a labelled set."""
    return list(_label_files(folder))


def read_labels(folder: Path, source: LabelSource, split: str) -> LabelledRows:
    """Reads one of `label_splits`: labels at once; of images two row groups stay in memory."""
    files = _label_files(folder)
    with _opened(files[split][0]) as opened:
        schema = opened.schema_arrow
    image, label = _label_columns(schema.names, files[split][0])
    known = _class_label_names(schema, label) or known_class_names(folder, source)
    values: dict[str, list[Any]] = {name: [] for name in ([split] if known else files)}
    groups: list[tuple[Path, int]] = []
    sizes: list[int] = []
    for name, listed in values.items():
        for file in files[name]:
            with _opened(file) as opened:
                listed += opened.read([label]).column(0).to_pylist()
                if name == split:
                    groups += [(file, group) for group in range(opened.num_row_groups)]
                    sizes += _group_sizes(opened)
    names, labels = resolve_labels(values, split, known, folder)
    ends = np.cumsum(sizes)

    @functools.lru_cache(maxsize=2)
    def read_group(number: int) -> Any:
        file, group = groups[number]
        with _opened(file) as opened:
            return opened.read_row_group(group, [image]).column(0)

    def read_image(index: int) -> bytes:
        number = int(np.searchsorted(ends, index, side="right"))
        column = read_group(number)
        try:
            return image_bytes(column[index - int(ends[number])].as_py(), folder)
        except BadRecord as error:
            raise InputError(f"{groups[number][0]}: example {index}: {error}") from error

    keys = [f"{split}[{row}]" for row in range(len(labels))]
    return LabelledRows(names, labels, keys, read_image)


def _label_files(folder: Path) -> dict[str, list[Path]]:
    """Returns, by split, those in the folder or one below it; no hidden or system ones."""
    listed = sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])
    files = splits_by_name([
        file for file in listed if not any(map(is_system, file.relative_to(folder).parts))
    ])  # fmt: skip
    for split, listed in files.items():
        places = sorted({str(file.parent) for file in listed})
        if len(places) > 1:
            raise InputError(
                f"{folder}: has split {split!r} in several folders; keep one of {', '.join(places)}"
            )
    return files


def _label_columns(names: list[str], file: Path) -> list[str]:
    """Returns those of images and of labels; InputError where one is missing."""
    found = []
    for column in LABELS.columns.values():
        name = find_column(names, column)
        if name is None:
            wish = ", ".join(column.default_names)
            raise InputError(f"{file}: columns are {', '.join(names)}; expected one of {wish}")
        found.append(name)
    return found


def _class_label_names(schema: Any, label: str) -> list[str]:
    """Returns a ClassLabel's, which the library `datasets` writes beside the columns, or []."""
    try:
        about = parse_json((schema.metadata or {})[b"huggingface"], "the schema's metadata")
        return list(about["info"]["features"][label]["names"])
    except (KeyError, TypeError, InputError):
        return []


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """Gives a ParquetFile; what is wrong with the file raises InputError from pyarrow's error."""
    parquet, lib = import_arrow("pyarrow.parquet"), import_arrow("pyarrow.lib")
    try:
        with contextlib.ExitStack() as stack:
            # Of an object the ranges that are asked for, five megabytes at least.
            place = stack.enter_context(file.open("rb")) if is_remote(file) else file
            yield stack.enter_context(parquet.ParquetFile(place))
    except (lib.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file}: cannot be read as Parquet ({reason})") from error


def _group_sizes(opened: Any) -> list[int]:
    """Returns the number of rows of each row group."""
    return [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]


def splits_by_name(files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each split, as the hub names them; {} where any has another name."""
    matches = [HUB_NAME.fullmatch(file.name) for file in files]
    found: dict[str, list[Path]] = {}
    if all(matches):
        for file, match in zip(files, matches, strict=True):
            found.setdefault(match[1], []).append(file)
    return found
