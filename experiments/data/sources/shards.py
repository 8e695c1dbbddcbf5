"""One piece of a source to shards of the prepared set, in any process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.text import escape, read_json
from experiments.data import sources
from experiments.data.sources.forms import Form
from experiments.data.sources.plan import Options
from experiments.data.sources.records import Ignored, Rejected, check_record

# One record a chunk, so that reading one decompresses no other.
WRITER = "group_size:1"


@dataclasses.dataclass(frozen=True)
class Rules:
    """What becomes of the records.

    validation: the share that goes into the split "validation", by a hash of what a record is
    about. max_side: of larger images, in pixels. normalize_text: whether texts are stored in NFC.
    """

    split: str = "train"
    validation: float = 0.0
    max_side: int | None = None
    shard_records: int = 4096
    normalize_text: bool = False


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of a piece.

    shards: [split, file, records] each. records: kept or not. rejected: where and why. Items of
    the source (rows, members or entries): kept_items, rejected_items, and ignored_items by rule.
    """

    shards: list[list[Any]]
    records: int
    rejected: list[dict[str, Any]]
    kept_items: int
    rejected_items: int
    ignored_items: dict[str, int]


def features(form: Form, codes: int = 0) -> tfds.features.FeaturesDict:
    """Of a prepared set; codes: how many an image has, 0 for none."""
    described: dict[str, Any] = {name: tfds.features.Text() for name in (*form.single, "key")}
    described[form.several] = tfds.features.Sequence(tfds.features.Text())
    if form.picture:
        described["image"] = tfds.features.Image(shape=(None, None, 3))
    if codes:
        described["codes"] = tfds.features.Tensor(shape=(codes,), dtype=np.int32)
    return tfds.features.FeaturesDict(described)


def serializer(described: tfds.features.FeaturesDict) -> Callable[[Mapping[str, Any]], bytes]:
    """From an example to its bytes, the same in every process."""
    examples = ExampleSerializer(described.get_serialized_info())

    def serialize(example: Mapping[str, Any]) -> bytes:
        # TFDS's own way leaves the order of the features to each process.
        proto = examples.get_tf_example(described.encode_example(example))
        return proto.SerializeToString(deterministic=True)

    return serialize


def split_of(subject: bytes, rules: Rules) -> str:
    """By what a record is about alone, whatever else there is in the source."""
    number = int.from_bytes(hashlib.sha256(subject).digest()[:8], "big")
    return "validation" if number < rules.validation * 2**64 else rules.split


def write_piece(
    options: Options, piece: Any, rules: Rules, folder: Path, number: int
) -> Written:
    """Shards into `folder`, and last the file that says that they are whole."""
    serialize = serializer(features(options.what))
    writers: dict[str, ShardWriter] = {}
    records = kept = lost = 0
    rejected: list[dict[str, Any]] = []
    ignored: Counter[str] = Counter()
    try:
        for found in sources.KINDS[options.kind].read(options, piece):
            if isinstance(found, Ignored):
                ignored[found.why] += found.items
                continue
            records += 1
            if isinstance(found, Rejected):
                record, reasons, items = None, [found], found.items
            else:
                items = found.items
                record, reasons = check_record(
                    found, options.what, rules.max_side, rules.normalize_text
                )
            rejected += [{**reason.where, "why": escape(reason.why)} for reason in reasons]
            lost += (left_out := sum(reason.items for reason in reasons))
            kept += items - left_out
            if record is None:
                continue
            split = split_of(record.subject, rules)
            if split not in writers:
                stem = f"piece-{number:06d}-{split}"
                writers[split] = ShardWriter(folder, stem, rules.shard_records)
            writers[split].write(serialize(record.example))
    finally:
        for writer in writers.values():
            writer.close()
    shards = [[split, *shard] for split in sorted(writers) for shard in writers[split].shards]
    written = Written(shards, records, rejected, kept, lost, dict(sorted(ignored.items())))
    replace_file(folder / result_name(number), json_line(dataclasses.asdict(written)))
    return written


def result_name(number: int) -> str:
    return f"piece-{number:06d}.json"


def read_result(folder: Path, number: int) -> Written | None:
    """What became of a piece; None for one that is to be written.

    InputError for a file that `write_piece` has not written: the shards that it names are moved.
    """
    file = folder / result_name(number)
    if not file.exists():
        return None
    try:
        written = Written(**read_json(file))
        ours = all(_is_shard(number, *shard) for shard in written.shards)
    except TypeError:
        ours = False
    if not ours:
        raise InputError(
            f"{escape(str(file))}: is no result of preparing data; remove {escape(str(folder))}"
        )
    return written


def _is_shard(number: int, split: Any, name: Any, count: Any) -> bool:
    """Tells if a shard has the name of one of this piece, and its split that of no path."""
    if not isinstance(split, str) or not isinstance(name, str) or type(count) is not int:
        return False
    stem = re.escape(f"piece-{number:06d}-{split}")
    plain = split not in ("", ".", "..") and not set("/\\\0") & set(split)
    return plain and count >= 0 and re.fullmatch(rf"{stem}-[0-9]{{3,}}", name) is not None


def json_line(data: Mapping[str, Any]) -> str:
    """JSON with letters as they are; a surrogate of an undecodable name is JSON's own escape."""
    return escape(json.dumps(data, ensure_ascii=False)) + "\n"


def summarize(rejected: list[dict[str, Any]]) -> Counter[str]:
    """How often each reason was given, without its details."""
    return Counter(line["why"].partition(":")[0] for line in rejected)


class ShardWriter:
    """Serialised records to files of at most so many; `shards` are [file, records]."""

    def __init__(self, folder: Path, stem: str, most: int) -> None:
        self.shards: list[list[Any]] = []
        self._folder, self._stem, self._most = folder, stem, most
        self._writer: ArrayRecordWriter | None = None

    def write(self, record: bytes) -> None:
        if self._writer is None:
            name = f"{self._stem}-{len(self.shards):03d}"
            self._writer = ArrayRecordWriter(str(self._folder / f"{name}.part"), WRITER)
            self.shards.append([name, 0])
        self._writer.write(record)
        self.shards[-1][1] += 1
        if self.shards[-1][1] == self._most:
            self.close()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            file = self._folder / self.shards[-1][0]
            os.replace(file.with_name(file.name + ".part"), file)
