"""A Hugging Face data set on disk, as `save_to_disk` leaves it: state.json beside *.arrow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.paths import local_copy
from clip_jax.text import check_encodable, read_json
from experiments.data.sources.arrow_package import import_arrow, read_batch, runs_of
from experiments.data.sources.columns import choose_columns
from experiments.data.sources.read_plan import ReadPlan, SourceConfig, file_fingerprints
from experiments.data.sources.records import Candidate, Rejected

UNIT = "rows"
STATE, SPLITS = "state.json", "dataset_dict.json"

# File, first batch, past the last one, number of the first row. What cannot be read is a chunk too,
# so that it is reported.
Chunk = tuple[str, int, int, int]


def matches(source: Path) -> bool:
    return source.is_dir() and any((source / name).is_file() for name in (STATE, SPLITS))


def plan(config: SourceConfig) -> ReadPlan:
    """Chunks are runs of record batches."""
    lib = import_arrow("pyarrow.lib")
    folder = _folder(config)
    files = _files(folder)
    chunks: list[Chunk] = []
    names: list[str] | None = None
    for file in files:
        rows: list[int] = []
        try:
            with _open(file) as (schema, batches):
                names = names or schema.names
                rows.extend(batch.num_rows for batch in batches)
            damaged = False
        except (lib.ArrowException, OSError):
            damaged = True
        runs = list(runs_of(rows, config.chunk_records))
        chunks += [(file.name, run[0], run[-1] + 1, row) for run, row in runs]
        if damaged:
            chunks.append((file.name, len(rows), len(rows) + 1, sum(rows)))
    if names is None:
        raise InputError(f"{folder}: none of its files can be read as Arrow")
    config = choose_columns(names, config, folder)
    return ReadPlan(config, file_fingerprints(folder, [folder / STATE, *files]), chunks)


def read(config: SourceConfig, chunk: Chunk) -> Iterator[Candidate | Rejected]:
    lib = import_arrow("pyarrow.lib")
    folder = _folder(config)
    name, first, last, row = chunk
    try:
        with _open(folder / name) as (_, batches):
            for i, batch in enumerate(batches):
                if i >= last:
                    return
                if i >= first:
                    yield from read_batch(batch, config, folder, name, row)
                    row += batch.num_rows
    except (lib.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        yield Rejected({"file": name, "row": row}, f"rows from here on cannot be read: {reason}")


def _folder(config: SourceConfig) -> Path:
    """The source's, or that of one split where it has several."""
    source = config.path
    if (source / STATE).is_file():
        return source
    known = sorted(file.parent.name for file in source.glob(f"*/{STATE}"))
    if config.from_split not in known:
        raise InputError(
            f"{source}: has no split {config.from_split!r}; say --from-split, one of "
            f"{', '.join(known)}"
        )
    return source / config.from_split


def _files(folder: Path) -> list[Path]:
    try:
        state = read_json(folder / STATE)
        names = [entry["filename"] for entry in state["_data_files"]]
    except (InputError, KeyError, TypeError) as error:
        raise InputError(f"{folder / STATE}: does not list the data's files") from error
    if state.get("_indices_data_files"):
        raise InputError(f"{folder}: was saved with an index; save it again with datasets 2 or 3")
    for name in names:
        if not isinstance(name, str) or not (folder / name).is_file() or Path(name).name != name:
            raise InputError(f"{folder / STATE}: lists {name!r}, which is no file of the folder")
        check_encodable(name, "file")  # pyarrow takes names as UTF-8
    return [folder / name for name in names]


class _open:
    """The schema and the record batches of a file, mapped into memory; stream or file format.

    An object is copied to a temporary file first: a stream has no index, so all before a batch is
    read.
    """

    def __init__(self, file: Path) -> None:
        self._arrow = import_arrow("pyarrow")
        import_arrow("pyarrow.ipc")
        self._copies = contextlib.ExitStack()
        try:
            local = self._copies.enter_context(local_copy(file))
            self._mapped = self._arrow.memory_map(str(local))
        except BaseException:
            self._copies.close()
            raise

    def __enter__(self) -> tuple[Any, Iterator[Any]]:
        ipc = self._arrow.ipc
        try:
            stream = ipc.open_stream(self._mapped)
        except self._arrow.ArrowInvalid:
            self._mapped.seek(0)
            opened = ipc.open_file(self._mapped)
            batches = (opened.get_batch(i) for i in range(opened.num_record_batches))
            return opened.schema, batches
        return stream.schema, iter(stream)

    def __exit__(self, *_: object) -> None:
        self._mapped.close()
        self._copies.close()
