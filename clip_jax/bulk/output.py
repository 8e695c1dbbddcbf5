"""Files of finished pieces: rows as Parquet, samples as tar shards that webdataset reads."""

from __future__ import annotations

import contextlib
import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from clip_jax.atomic_file import replacing
from clip_jax.errors import InputError
from clip_jax.paths import is_remote
from clip_jax.text import escape

ROWS, SHARDS = "rows", "shards"
FORMATS = ("parquet", "webdataset")
_SIGNATURES = {
    b"\xff\xd8\xff": "jpg", b"\x89PNG": "png", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif",
    b"MM\0*": "tif",
}  # fmt: skip


def check_packages() -> None:
    """Raises InputError where Parquet files cannot be written."""
    _pyarrow()


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """Writes a Parquet file atomically. columns: name -> type, such as "float32" or "[float32]"."""
    pa, pq = _pyarrow()
    schema = pa.schema([(name, _type(pa, kind)) for name, kind in columns.items()])
    if not is_remote(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows], schema)
    with replacing(file) as temporary:
        pq.write_table(table, temporary)


def read_rows(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Reads columns of a Parquet file that `write_rows` wrote."""
    _, pq = _pyarrow()
    with file.open("rb") as opened:
        return pq.read_table(opened, columns=list(columns)).to_pylist()


def read_table(file: Path) -> list[dict[str, Any]]:
    """Reads all of a Parquet file from outside; InputError where that fails."""
    pa, pq = _pyarrow()
    try:
        with file.open("rb") as opened:
            return pq.read_table(opened).to_pylist()
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{escape(str(file))}: cannot be read as Parquet ({reason})") from error


class Shard:
    """A tar that is written sample by sample; one without samples is not written at all."""

    def __init__(self, temporary: Path) -> None:
        self.samples = 0
        self._temporary = temporary
        self._tar: tarfile.TarFile | None = None

    def add(self, name: str, members: Mapping[str, bytes]) -> None:
        """Adds a sample: its members by extension, as NAME.EXTENSION."""
        if self._tar is None:
            self._tar = tarfile.open(self._temporary, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        for extension, data in members.items():
            # Of no time and no owner, so that the same run gives the same bytes.
            info = tarfile.TarInfo(f"{name}.{extension}")
            info.size = len(data)
            self._tar.addfile(info, io.BytesIO(data))
        self.samples += 1

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()


@contextlib.contextmanager
def shard_writer(file: Path) -> Iterator[Shard]:
    """Yields a shard, which is at its place when the context ends, if it has samples."""
    if not is_remote(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(_Empty), replacing(file) as temporary:
        shard = Shard(temporary)
        try:
            yield shard
        finally:
            shard.close()
        if not shard.samples:
            file.unlink(missing_ok=True)
            raise _Empty


class _Empty(Exception):
    """Leaves `replacing` without a file."""


def image_extension(data: bytes) -> str:
    """Returns the usual extension of an encoded image, by its first bytes."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return "avif"
    return next((end for start, end in _SIGNATURES.items() if data.startswith(start)), "jpg")


def _type(pa: ModuleType, kind: str) -> Any:
    return pa.list_(pa.type_for_alias(kind[1:-1])) if kind[0] == "[" else pa.type_for_alias(kind)


def _pyarrow() -> tuple[ModuleType, ModuleType]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise InputError(
            "Parquet files need the package 'pyarrow', which is not installed: "
            "pip install 'rudolph-jax[prepare]'"
        ) from error
    return pa, pq
