"""Writes a chunk of a source to shards of the prepared set, in any process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from clip_jax.atomic_file import replace_file, temporary_name
from clip_jax.errors import InputError
from clip_jax.paths import is_remote, upload_folder
from clip_jax.text import escape, read_json
from experiments.config.data import BACKGROUNDS
from experiments.data import sources
from experiments.data.image_index import PLACE, TAR, indexed
from experiments.data.inspection import Inspector
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.records import Ignored, Rejected, check_record
from experiments.data.sources.schema import RecordSchema

VALIDATION = "validation"
# One record a chunk, so that reading one decompresses no other.
WRITER = "group_size:1"


@dataclasses.dataclass(frozen=True)
class WriteConfig:
    """Say how to write the records of a source.

    validation: the share that goes into the split "validation", by a hash of what a record is
    about. max_side: of larger images, in pixels. shard_records, shard_bytes: a shard is full with
    so many of either. normalize_text: whether texts are stored in NFC.
    background: under transparent pixels, which the set states and whoever reads it uses; "": left
    to the model. inspect: whether images and captions are inspected (`inspection.py`).
    index_only: whether images stay in the source's tars (`image_index.py`).
    """

    split: str = "train"
    validation: float = 0.0
    max_side: int | None = None
    shard_records: int = 4096
    normalize_text: bool = False
    background: str = ""
    inspect: bool = True
    shard_bytes: int = 512 * 2**20
    index_only: bool = False


@dataclasses.dataclass(frozen=True)
class ChunkResult:
    """The result of writing a chunk.

    shards: [split, file, records] each. records: kept or not. rejected: where and why. Items of
    the source (rows, members or entries): kept_items, rejected_items, and ignored_items by rule.
    """

    shards: list[list[Any]]
    records: int
    rejected: list[dict[str, Any]]
    kept_items: int
    rejected_items: int
    ignored_items: dict[str, int]


def features(
    schema: RecordSchema, codes: int = 0, index_only: bool = False
) -> tfds.features.FeaturesDict:
    """Returns those of a prepared set. codes: how many an image has, 0 for none."""
    texts = (*schema.scalar_features, "key")
    described: dict[str, Any] = {name: tfds.features.Text() for name in texts}
    described[schema.repeated_feature] = tfds.features.Sequence(tfds.features.Text())
    if index_only:
        described[TAR] = tfds.features.Text()
        described[PLACE] = tfds.features.Tensor(shape=(3,), dtype=np.int64)
    elif schema.has_image:
        described["image"] = tfds.features.Image(shape=(None, None, 3))
    if codes:
        described["codes"] = tfds.features.Tensor(shape=(codes,), dtype=np.int32)
    return tfds.features.FeaturesDict(described)


def serializer(described: tfds.features.FeaturesDict) -> Callable[[Mapping[str, Any]], bytes]:
    """Returns what turns an example into bytes, the same in every process."""
    examples = ExampleSerializer(described.get_serialized_info())

    def serialize(example: Mapping[str, Any]) -> bytes:
        # TFDS's own way leaves the order of the features to each process.
        proto = examples.get_tf_example(described.encode_example(example))
        return proto.SerializeToString(deterministic=True)

    return serialize


def split_of(split_key: bytes, write_config: WriteConfig) -> str:
    """Returns the split by what a record is about alone, whatever else there is in the source."""
    number = int.from_bytes(hashlib.sha256(split_key).digest()[:8], "big")
    return VALIDATION if number < write_config.validation * 2**64 else write_config.split


def write_chunk(
    config: SourceConfig, chunk: Any, write_config: WriteConfig, folder: Path, number: int
) -> ChunkResult:
    """Writes shards into `folder`, and last the file that says that they are whole.

    For a folder in a bucket they are written to a temporary one and uploaded, whole and in that
    order: ArrayRecord writes no objects.
    """
    if not is_remote(folder):
        return _write_chunk(config, chunk, write_config, folder, number)
    with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as local:
        written = _write_chunk(config, chunk, write_config, Path(local), number)
        upload_folder(Path(local), folder, last=result_name(number))
    return written


def _write_chunk(
    config: SourceConfig, chunk: Any, write_config: WriteConfig, folder: Path, number: int
) -> ChunkResult:
    serialize = serializer(features(config.schema, index_only=write_config.index_only))
    inspector = Inspector(BACKGROUNDS[write_config.background or "none"], VALIDATION)
    writers: dict[str, ShardWriter] = {}
    records = kept = lost = 0
    rejected: list[dict[str, Any]] = []
    ignored: Counter[str] = Counter()
    try:
        for found in sources.KINDS[config.kind].read(config, chunk):
            if isinstance(found, Ignored):
                ignored[found.why] += found.items
                continue
            records += 1
            if isinstance(found, Rejected):
                record, reasons, items = None, [found], found.items
            else:
                items = found.items
                record, reasons = check_record(
                    found, config.schema, write_config.max_side, write_config.normalize_text,
                    config.group_by,
                )  # fmt: skip
            rejected += [{**reason.where, "why": escape(reason.why)} for reason in reasons]
            lost += (left_out := sum(reason.items for reason in reasons))
            kept += items - left_out
            if record is None:
                continue
            split = split_of(record.split_key, write_config)
            if split not in writers:
                stem = f"piece-{number:06d}-{split}"
                writers[split] = ShardWriter(
                    folder, stem, write_config.shard_records, write_config.shard_bytes
                )
            example = record.example
            if write_config.index_only:
                example = indexed(example, found)
            writers[split].write(serialize(example))
            if write_config.inspect:
                inspector.add(record, split)
    finally:
        for writer in writers.values():
            writer.close()
    shards = [[split, *shard] for split in sorted(writers) for shard in writers[split].shards]
    written = ChunkResult(shards, records, rejected, kept, lost, dict(sorted(ignored.items())))
    if write_config.inspect and config.schema.has_image:
        inspector.write(folder / notes_name(number))
    replace_file(folder / result_name(number), json_line(dataclasses.asdict(written)))
    return written


def result_name(number: int) -> str:
    # Earlier versions wrote these names: they are still read.
    return f"piece-{number:06d}.json"


def notes_name(number: int) -> str:
    """Returns the file of `inspection.py` on a chunk."""
    return f"piece-{number:06d}.npz"


def coded_name(shard: str) -> str:
    """Returns the name of the shard with codes that replaces one without."""
    return f"{shard}.codes"


def read_result(folder: Path, number: int) -> ChunkResult | None:
    """Returns what became of a chunk; None for one that is to be written.

    InputError for a file that `write_chunk` has not written: the shards that it names are moved.
    """
    file = folder / result_name(number)
    if not file.exists():
        return None
    try:
        written = ChunkResult(**read_json(file))
        ours = all(_is_shard(number, *shard) for shard in written.shards)
    except TypeError:
        ours = False
    if not ours:
        raise InputError(
            f"{escape(str(file))}: is no result of preparing data; remove {escape(str(folder))}"
        )
    return written


def _is_shard(number: int, split: Any, name: Any, count: Any) -> bool:
    """Tells if a shard has the name of one of this chunk, and its split that of no path."""
    if not isinstance(split, str) or not isinstance(name, str) or type(count) is not int:
        return False
    stem = re.escape(f"piece-{number:06d}-{split}")
    plain = split not in ("", ".", "..") and not set("/\\\0") & set(split)
    return plain and count >= 0 and re.fullmatch(rf"{stem}-[0-9]{{3,}}", name) is not None


def json_line(data: Mapping[str, Any]) -> str:
    """Returns JSON with letters as they are; a surrogate of an undecodable name is escaped."""
    return escape(json.dumps(data, ensure_ascii=False)) + "\n"


def summarize(rejected: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """Counts how often each reason was given, without its details."""
    return Counter(line["why"].partition(":")[0] for line in rejected)


class ShardWriter:
    """Serialised records to files of at most so many; `shards` are [file, records].

    most_bytes: of records, with which a file is full too.
    """

    def __init__(self, folder: Path, stem: str, most: int, most_bytes: int) -> None:
        self.shards: list[list[Any]] = []
        self._folder, self._stem, self._most, self._most_bytes = folder, stem, most, most_bytes
        self._bytes = 0
        self._writer: ArrayRecordWriter | None = None
        self._temporary = folder

    def write(self, record: bytes) -> None:
        if self._writer is None:
            name = f"{self._stem}-{len(self.shards):03d}"
            # Another machine may write the same chunk: one that was taken for dead.
            self._temporary = temporary_name(self._folder / name)
            self._writer = ArrayRecordWriter(str(self._temporary), WRITER)
            self.shards.append([name, 0])
            self._bytes = 0
        self._writer.write(record)
        self.shards[-1][1] += 1
        self._bytes += len(record)
        if self.shards[-1][1] == self._most or self._bytes >= self._most_bytes:
            self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            os.replace(self._temporary, self._folder / self.shards[-1][0])
