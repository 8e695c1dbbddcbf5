"""A prepared TFDS set without TensorFlow: ArrayRecord, or TFRecord by the places of its records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from tqdm import tqdm

from clip_jax.errors import InputError
from experiments.data.sources import tfds_sets
from experiments.data.sources.tf_records import TfRecords
from experiments.data.tfds_package import import_tfds
from experiments.evaluation.sets.labelled import Rows, first_unique
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.split_names import find_split

IMAGE = "image"
# The source's own names of examples, where it has them.
KEYS = ("id", "file_name", "image/file_name")


def splits(folder: Path) -> list[str]:
    """Of one version's folder; none elsewhere."""
    return list(tfds_sets.open_builder(folder).info.splits) if tfds_sets.fits(folder) else []


def version(folder: Path) -> str:
    """As TFDS writes it: "sun397/standard-part1-120k:4.0.0"."""
    *name, number = tfds_sets.open_builder(folder).info.full_name.split("/")
    return f"{'/'.join(name)}:{number}"


def read(folder: Path, record: SetRecord, split: str) -> Rows:
    """One pass over the records finds all labels; images are read again when asked for."""
    builder = tfds_sets.open_builder(folder)
    features = builder.info.features
    absent = {IMAGE, record.label} - set(features)
    if absent:
        found = ", ".join(sorted(features))
        raise InputError(f"{folder}: features are {found}; expected {', '.join(sorted(absent))}")
    split = find_split(folder, record, split, builder.info.splits)
    names = _class_names(features[record.label], record, folder)
    records = _records(builder, split)
    image = _part(features, [IMAGE])
    rest = _part(features, [record.label, *(key for key in KEYS if key in features)])

    def parse(part: Any, index: int, **how: Any) -> dict[str, Any]:
        try:
            return part.deserialize_example_np(records[index], **how)
        except Exception as error:  # the parser's own are many, and of no common kind
            reason = " ".join(str(error).split())
            raise InputError(
                f"{folder}: example {index} of split {split!r} cannot be read: {reason}"
            ) from error

    def read_image(index: int) -> bytes:
        return parse(image, index, decoders={IMAGE: import_tfds().decode.SkipDecoding()})[IMAGE]

    places = tqdm(range(len(records)), f"labels of {record.name}", disable=None, leave=False)
    rows = [parse(rest, place) for place in places]
    labels = [_label(row[record.label], record) for row in rows]
    return Rows(names, labels, _keys(rows, labels, names, split), read_image)


def _records(builder: Any, split: str) -> Sequence[bytes]:
    files = tfds_sets.split_files(builder, split)
    if tfds_sets.form(builder) == "array_record":
        return ArrayRecordDataSource([str(file) for file in files])
    try:
        return TfRecords(files)
    except ValueError as error:
        raise InputError(f"{builder.data_path}: split {split!r} is damaged: {error}") from error


def _part(features: Any, names: Sequence[str]) -> Any:
    """These alone, so that no image or mask is decoded on the way."""
    return import_tfds().features.FeaturesDict({name: features[name] for name in names})


def _class_names(feature: Any, record: SetRecord, folder: Path) -> Sequence[str]:
    if record.class_names:
        return record.class_names
    if not isinstance(feature, import_tfds().features.ClassLabel):
        raise InputError(f"{folder}: feature {record.label!r} is {feature}; expected a ClassLabel")
    return feature.names


def _label(value: Any, record: SetRecord) -> int:
    if record.count_from is None:
        return int(value)
    # A sequence of dicts comes as a dict of sequences.
    return len(next(iter(value.values()))) - record.count_from


def _keys(
    rows: Sequence[Any], labels: Sequence[int], names: Sequence[str], split: str
) -> Sequence[str]:
    """The source's own, with the class where they are not unique; else places in the split."""
    places = [f"{split}[{place}]" for place in range(len(rows))]
    own = ([_text(row[key]) for row in rows] for key in KEYS if rows and key in rows[0])
    keys = next(own, places)
    named = dict(enumerate(names))
    longer = [f"{named.get(label)}/{key}" for label, key in zip(labels, keys, strict=True)]
    return first_unique(keys, longer, places)


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
