"""Writes an index in the forms of other programs: Parquet, and what clip-retrieval reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.arguments import check_path
from clip_jax.config import check_choice
from clip_jax.errors import InputError
from clip_jax.index.folder import IndexFolder
from clip_jax.paths import local_path
from clip_jax.text import escape

FORMATS = ("parquet", "clip-retrieval")
ROWS_PER_FILE = 100_000


def export_index(index: IndexFolder, folder: str | Path, form: str) -> int:
    """Writes every image's key and embedding to a new folder; returns the number of images.

    form: "parquet": part-NNNNN.parquet with the columns key and embedding (a list of float16[E]).
        "clip-retrieval": img_emb/img_emb_N.npy, float16[rows, E], and metadata/metadata_N.parquet
        with the column image_path, as its `clip-retrieval index` takes them.
    """
    check_choice("form", form, FORMATS)
    place = local_path(check_path("folder", folder), "an export of an index")
    if place.exists() and any(place.iterdir()):
        raise InputError(f"{escape(str(place))}: is not empty; expected a new folder")
    images = 0
    for number, (keys, embeddings) in enumerate(_parts(index)):
        if form == "parquet":
            _write_parquet(place / f"part-{number:05d}.parquet", keys, embeddings)
        else:
            file = place / "img_emb" / f"img_emb_{number}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, embeddings)
            metadata = place / "metadata" / f"metadata_{number}.parquet"
            _write_table(metadata, {"image_path": keys})
        images += len(keys)
    return images


def _parts(index: IndexFolder) -> Iterator[tuple[list[str], np.ndarray]]:
    keys: list[str] = []
    rows: list[int] = []
    for entry, row in index.items():
        keys.append(escape(entry.key))  # Parquet has no names that are not UTF-8
        rows.append(row)
        if len(keys) == ROWS_PER_FILE:
            yield keys, index.embeddings[np.asarray(rows)]
            keys, rows = [], []
    if keys:
        yield keys, index.embeddings[np.asarray(rows)]


def _write_parquet(file: Path, keys: list[str], embeddings: np.ndarray) -> None:
    import pyarrow as pa

    values = pa.array(np.ascontiguousarray(embeddings).reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(values, embeddings.shape[1])
    _write_table(file, {"key": keys, "embedding": lists})


def _write_table(file: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)
