"""Ends a preparation: shards get their names and the set its metadata."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from clip_jax.paths import as_path, copy_objects, is_remote, upload_folder
from experiments.data.image_index import INDEX
from experiments.data.sources.schema import CODES, RecordSchema
from experiments.data.sources.shards import features

NAME, VERSION = "prepared", "1.0.0"
UNFINISHED, INFO = "unfinished", "dataset_info.json"


def write_tfds_metadata(
    out: Path, schema: RecordSchema, shards: list[list[Any]], metadata: dict[str, Any]
) -> None:
    """Renames the shards as TFDS wants them, and writes the metadata.

    In a bucket shards are copied to their names, inside of it; those in `unfinished` stay.

    metadata: what `Split.metadata` is to have, by name.
    """
    codes = metadata.get(CODES)
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(out), dataset_name=NAME, filetype_suffix="array_record"
    )
    splits = []
    for split in dict.fromkeys(sorted(shard[0] for shard in shards)):
        mine = [(name, count) for of, name, count in shards if of == split]
        named = template.replace(split=split)
        moves = [
            (
                out / UNFINISHED / name,
                as_path(named.sharded_filepath(shard_index=number, num_shards=len(mine))),
            )
            for number, (name, _) in enumerate(mine)
        ]
        size = _move(moves, out)
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[count for _, count in mine],
                num_bytes=size,
                filename_template=named,
            )
        )
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=NAME, version=tfds.core.Version(VERSION), data_dir=str(out), module_name=""
        ),
        features=features(schema, codes["count"] if codes else 0, INDEX in metadata),
        metadata=tfds.core.MetadataDict(metadata) if metadata else None,
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict(splits))
    if is_remote(out):
        with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as local:
            info.write_to_directory(local)
            upload_folder(Path(local), out, last=INFO)
        return
    written = out / UNFINISHED / "metadata"
    written.mkdir(exist_ok=True)
    info.write_to_directory(written)
    for file in sorted(written.iterdir(), key=lambda file: file.name == INFO):
        os.replace(file, out / file.name)


def _move(moves: list[tuple[Path, Path]], out: Path) -> int:
    """Renames or copies shards, those that an interrupted call has not; returns all their bytes."""
    if is_remote(out):
        there = {file.name for file in out.iterdir()}
        copy_objects([(source, target) for source, target in moves if target.name not in there])
        sizes = {file.name: file.stat().st_size for file in out.iterdir() if file.is_file()}
        return sum(sizes[target.name] for _, target in moves)
    for source, target in moves:
        if source.exists():
            os.replace(source, target)
    return sum(target.stat().st_size for _, target in moves)
