"""Parquet files: a file, or a folder of them as the Hugging Face hub stores a data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from clip_jax.errors import InputError
from clip_jax.text import check_encodable
from experiments.data.sources.arrow_package import (
    import_arrow,
    read_batch,
    runs_of,
    stored_columns,
)
from experiments.data.sources.columns import choose_columns
from experiments.data.sources.plan import Options, Plan, stamps
from experiments.data.sources.records import Candidate, Rejected

UNIT = "rows"
ROWS_AT_ONCE = 64  # whose images are in memory together
# As the hub names them: data/train-00000-of-00004.parquet, maybe with a hash before the suffix.
HUB_NAME = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet")

# File, row groups, number of the first row; None for a file that cannot be read.
Piece = tuple[str, list[int] | None, int]


def fits(source: Path) -> bool:
    return source.suffix == ".parquet" if source.is_file() else any(source.rglob("*.parquet"))


def plan(options: Options) -> Plan:
    """Pieces are runs of row groups."""
    parquet, lib = import_arrow("pyarrow.parquet"), import_arrow("pyarrow.lib")
    folder, files = _files(options)
    pieces: list[Piece] = []
    names: list[str] | None = None
    for file in files:
        name = file.relative_to(folder).as_posix()
        check_encodable(name, "file")  # pyarrow takes names as UTF-8
        try:
            with parquet.ParquetFile(file) as opened:
                names = names or opened.schema_arrow.names
                rows = [
                    opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)
                ]
        except (lib.ArrowException, OSError):
            pieces.append((name, None, 0))
            continue
        pieces += [(name, groups, row) for groups, row in runs_of(rows, options.piece_records)]
    if names is None:
        raise InputError(f"{options.source}: none of its files can be read as Parquet")
    options = choose_columns(names, options, options.source)
    return Plan(options, stamps(folder, files), pieces)


def read(options: Options, piece: Piece) -> Iterator[Candidate | Rejected]:
    parquet, lib = import_arrow("pyarrow.parquet"), import_arrow("pyarrow.lib")
    source = Path(options.source)
    folder = source if source.is_dir() else source.parent
    name, groups, row = piece
    end = row
    try:
        with parquet.ParquetFile(folder / name) as opened:
            end += sum(opened.metadata.row_group(group).num_rows for group in groups or ())
            # Only these leave the disk.
            wanted = stored_columns(opened.schema_arrow.names, options)
            for batch in opened.iter_batches(ROWS_AT_ONCE, groups, wanted, use_threads=False):
                yield from read_batch(batch, options, folder, name, row)
                row += batch.num_rows
    except (lib.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        why = f"rows from here on cannot be read: {reason}"
        yield Rejected({"file": name, "row": row}, why, max(end - row, 1))


def _files(options: Options) -> tuple[Path, list[Path]]:
    """Those of `from_split` alone, where the names tell splits."""
    source = Path(options.source)
    if source.is_file():
        return source.parent, [source]
    files = sorted(source.rglob("*.parquet"))
    if not files:
        raise InputError(f"{source}: no *.parquet here")
    splits = splits_by_name(files)
    if splits:
        if options.from_split not in splits:
            known = ", ".join(sorted(splits))
            raise InputError(
                f"{source}: has no split {options.from_split!r}; say --from-split, one of {known}"
            )
        files = splits[options.from_split]
        folders = sorted({str(file.parent.relative_to(source)) for file in files})
        if len(folders) > 1:
            raise InputError(
                f"{source}: has split {options.from_split!r} in several folders; name one as "
                f"SOURCE: {', '.join(folders)}"
            )
    return source, files


def splits_by_name(files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each split, as the hub names them; {} where any has another name."""
    matches = [HUB_NAME.fullmatch(file.name) for file in files]
    found: dict[str, list[Path]] = {}
    if all(matches):
        for file, match in zip(files, matches, strict=True):
            found.setdefault(match[1], []).append(file)
    return found
