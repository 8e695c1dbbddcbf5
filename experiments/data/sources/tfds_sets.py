"""A prepared TFDS set without TensorFlow: its folder, or its name and the `data_dir` it is in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from tqdm import tqdm

from clip_jax.errors import InputError
from clip_jax.paths import as_path
from experiments.data.sources import tf_records
from experiments.data.sources.columns import choose_columns, read_image, read_texts
from experiments.data.sources.groups import group_value
from experiments.data.sources.labels import LabelledRows, LabelSource, first_unique
from experiments.data.sources.read_plan import ReadPlan, SourceConfig, file_fingerprints
from experiments.data.sources.records import BadRecord, Candidate, Rejected

UNIT = "rows"
INFO, FEATURES = "dataset_info.json", "features.json"
IMAGE = "image"  # of labelled sets
# Names of a labelled set's own for its examples, where it has them.
KEYS = ("id", "file_name", "image/file_name")


def import_tfds() -> ModuleType:
    """Imports tensorflow_datasets, whose sixth of a second a wrong config need not wait for."""
    import tensorflow_datasets

    return tensorflow_datasets


def matches(source: Path) -> bool:
    return source.is_dir() and (source / INFO).is_file() and (source / FEATURES).is_file()


def plan(config: SourceConfig) -> ReadPlan:
    """Chunks are shards."""
    folder = _folder(config)
    builder = open_builder(folder)
    features, splits = builder.info.features, builder.info.splits
    if config.from_split not in splits:
        known = ", ".join(splits)
        raise InputError(
            f"{folder}: has no split {config.from_split!r}; say --from-split, one of {known}"
        )
    config = choose_columns(features, config, folder)
    image, image_feature = config.image_column, import_tfds().features.Image
    if image and not (image in features and isinstance(features[image], image_feature)):
        raise InputError(f"{folder}: feature {image!r} is no image; say --image-column")
    files = split_files(builder, config.from_split)
    return ReadPlan(
        config, file_fingerprints(folder, [folder / INFO, *files]), [file.name for file in files]
    )


def read(config: SourceConfig, chunk: str) -> Iterator[Candidate | Rejected]:
    folder = _folder(config)
    builder = open_builder(folder)
    features = builder.info.features
    has_image = config.schema.has_image
    skip = {config.image_column: import_tfds().decode.SkipDecoding()} if has_image else None
    files = split_files(builder, config.from_split)
    lengths = builder.info.splits[config.from_split].shard_lengths
    expected = dict(zip((file.name for file in files), lengths, strict=True))[chunk]
    number = -1
    try:
        for number, serialized in enumerate(_READERS[file_format(builder)](folder / chunk)):
            where = {"file": chunk, "row": number}
            try:
                row = features.deserialize_example_np(serialized, decoders=skip)
                image = read_image(row, config, folder) if has_image else None
                texts = read_texts(row, config)
                group = group_value(row, config.group_by)
            except BadRecord as error:
                yield Rejected(where, str(error))
            except Exception as error:  # the parser's own are many, and of no common kind
                yield Rejected(where, f"record cannot be parsed: {' '.join(str(error).split())}")
            else:
                yield Candidate(f"{chunk}:{number}", where, image, texts, group=group)
        reason = f"the file has {number + 1} records, its metadata {expected}"
        whole = number + 1 >= expected
    except (ValueError, OSError, RuntimeError, IndexError) as error:
        reason, whole = " ".join(str(error).split()), False
    if not whole:
        where = {"file": chunk, "row": max(number, 0)}
        why = f"records after this one cannot be read: {reason}"
        yield Rejected(where, why, max(expected - number - 1, 1))


def label_splits(folder: Path) -> list[str]:
    """Returns the splits of one version's folder; none elsewhere."""
    return list(open_builder(folder).info.splits) if matches(folder) else []


def version(folder: Path) -> str:
    """Returns a set's name as TFDS writes it: "sun397/standard-part1-120k:4.0.0"."""
    *name, number = open_builder(folder).info.full_name.split("/")
    return f"{'/'.join(name)}:{number}"


def read_labels(folder: Path, source: LabelSource, split: str) -> LabelledRows:
    """Reads one of `label_splits`: all labels in one pass, an image when it is needed."""
    builder = open_builder(folder)
    features = builder.info.features
    absent = {IMAGE, source.label} - set(features)
    if absent:
        found = ", ".join(sorted(features))
        raise InputError(f"{folder}: features are {found}; expected {', '.join(sorted(absent))}")
    names = _class_names(features[source.label], source, folder)
    records = _records(builder, split)

    def take(*names: str) -> Any:
        """These features alone, so that no image or mask is decoded on the way."""
        return import_tfds().features.FeaturesDict({name: features[name] for name in names})

    image = take(IMAGE)
    rest = take(source.label, *(key for key in KEYS if key in features))

    def parse(part: Any, index: int, **how: Any) -> dict[str, Any]:
        try:
            return part.deserialize_example_np(records[index], **how)
        except Exception as error:  # the parser's own are many, and of no common kind
            reason = " ".join(str(error).split())
            raise InputError(
                f"{folder}: example {index} of split {split!r} cannot be read: {reason}"
            ) from error

    def read(index: int) -> bytes:
        return parse(image, index, decoders={IMAGE: import_tfds().decode.SkipDecoding()})[IMAGE]

    places = tqdm(range(len(records)), f"labels of {folder}", disable=None, leave=False)
    rows = [parse(rest, place) for place in places]
    labels = [_label(row[source.label], source) for row in rows]
    return LabelledRows(names, labels, _keys(rows, labels, names, split), read)


def _records(builder: Any, split: str) -> Sequence[bytes]:
    files = split_files(builder, split)
    if file_format(builder) == "array_record":
        return ArrayRecordDataSource([str(file) for file in files])
    try:
        return tf_records.TfRecords(files)
    except ValueError as error:
        raise InputError(f"{builder.data_path}: split {split!r} is damaged: {error}") from error


def _class_names(feature: Any, source: LabelSource, folder: Path) -> Sequence[str]:
    if source.class_names:
        return source.class_names
    if not isinstance(feature, import_tfds().features.ClassLabel):
        raise InputError(f"{folder}: feature {source.label!r} is {feature}; expected a ClassLabel")
    return feature.names


def _label(value: Any, source: LabelSource) -> int:
    if source.label_offset is None:
        return int(value)
    # A sequence of dicts comes as a dict of sequences.
    return len(next(iter(value.values()))) - source.label_offset


def _keys(
    rows: Sequence[Any], labels: Sequence[int], names: Sequence[str], split: str
) -> Sequence[str]:
    """Returns the source's own, with the class where they are not unique; else places."""
    places = [f"{split}[{place}]" for place in range(len(rows))]
    own = ([_key(row[name]) for row in rows] for name in KEYS if rows and name in rows[0])
    keys = next(own, places)
    named = dict(enumerate(names))
    longer = [f"{named.get(label)}/{key}" for label, key in zip(labels, keys, strict=True)]
    return first_unique(keys, longer, places)


def _key(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _folder(config: SourceConfig) -> Path:
    """Return the folder of one version of one config; of several the source must name one."""
    source = config.path
    if matches(source):
        return source
    found = sorted({file.parent for file in source.rglob(INFO) if matches(file.parent)})
    if len(found) == 1:
        return found[0]
    base = as_path(config.data_dir) if config.data_dir else None
    listed = ", ".join(str(folder.relative_to(base) if base else folder) for folder in found)
    raise InputError(
        f"{source}: {f'name one of {listed}' if found else 'no prepared TFDS set here'}"
    )


def open_builder(folder: Path) -> Any:
    """TFDS's builder of one version's folder; what is none raises InputError."""
    try:
        return import_tfds().builder_from_directory(str(folder))
    except (FileNotFoundError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: cannot be read as a TFDS set ({reason})") from error


def file_format(builder: Any) -> str:
    return builder.info.file_format.value


def split_files(builder: Any, split: str) -> list[Path]:
    """Returns the files of a split, all there and in a form that can be read, or InputError."""
    folder = builder.data_path
    if file_format(builder) not in _READERS:
        raise InputError(
            f"{folder}: is in the form {file_format(builder)}; expected {' or '.join(_READERS)}: "
            "convert it with tensorflow_datasets.scripts.convert_format"
        )
    files = [as_path(path) for path in builder.info.splits[split].filepaths]
    there = {file.name: file for file in as_path(folder).iterdir() if file.is_file()}
    absent = [file.name for file in files if file.name not in there]
    if absent:
        raise InputError(f"{folder}: {absent[0]} is missing")
    return [there[file.name] for file in files]


def _array_records(file: Path) -> Iterator[bytes]:
    with ArrayRecordDataSource([str(file)]) as rows:
        for i in range(len(rows)):
            yield rows[i]


_READERS = {"array_record": _array_records, "tfrecord": tf_records.records}
