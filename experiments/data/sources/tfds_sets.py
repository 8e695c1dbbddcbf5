"""A prepared TFDS set: its folder, or its name and the `data_dir` it lies in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource

from clip_jax.errors import InputError
from experiments.data.sources import tf_records
from experiments.data.sources.columns import (
    choose_columns,
    image_bytes,
    look_up,
    read_texts,
)
from experiments.data.sources.plan import Options, Plan, stamps
from experiments.data.sources.records import BadRecord, Candidate, Rejected
from experiments.data.tfds_package import import_tfds

UNIT = "rows"
INFO, FEATURES = "dataset_info.json", "features.json"


def fits(source: Path) -> bool:
    return source.is_dir() and (source / INFO).is_file() and (source / FEATURES).is_file()


def plan(options: Options) -> Plan:
    """Pieces are shards."""
    folder = _folder(options)
    builder = open_builder(folder)
    features, splits = builder.info.features, builder.info.splits
    if options.from_split not in splits:
        known = ", ".join(splits)
        raise InputError(
            f"{folder}: has no split {options.from_split!r}; say --from-split, one of {known}"
        )
    options = choose_columns(features, options, folder)
    image, picture = options.image_column, import_tfds().features.Image
    if image and not (image in features and isinstance(features[image], picture)):
        raise InputError(f"{folder}: feature {image!r} is no picture; say --image-column")
    files = split_files(builder, options.from_split)
    return Plan(options, stamps(folder, [folder / INFO, *files]), [file.name for file in files])


def read(options: Options, piece: str) -> Iterator[Candidate | Rejected]:
    folder = _folder(options)
    builder = open_builder(folder)
    features = builder.info.features
    picture = options.what.picture
    skip = {options.image_column: import_tfds().decode.SkipDecoding()} if picture else None
    files = split_files(builder, options.from_split)
    lengths = builder.info.splits[options.from_split].shard_lengths
    expected = dict(zip((file.name for file in files), lengths, strict=True))[piece]
    number = -1
    try:
        for number, serialized in enumerate(_READERS[form(builder)](folder / piece)):
            where = {"file": piece, "row": number}
            try:
                row = features.deserialize_example_np(serialized, decoders=skip)
                image = image_bytes(look_up(row, options.image_column), folder) if picture else None
                texts = read_texts(row, options)
            except BadRecord as error:
                yield Rejected(where, str(error))
            except Exception as error:  # the parser's own are many, and of no common kind
                yield Rejected(where, f"record cannot be parsed: {' '.join(str(error).split())}")
            else:
                yield Candidate(f"{piece}:{number}", where, image, texts)
        reason = f"the file has {number + 1} records, its metadata {expected}"
        whole = number + 1 >= expected
    except (ValueError, OSError, RuntimeError, IndexError) as error:
        reason, whole = " ".join(str(error).split()), False
    if not whole:
        where = {"file": piece, "row": max(number, 0)}
        why = f"records after this one cannot be read: {reason}"
        yield Rejected(where, why, max(expected - number - 1, 1))


def _folder(options: Options) -> Path:
    """Of one version of one config, where there are several the source must name one."""
    source = Path(options.data_dir) / options.source
    if fits(source):
        return source
    found = sorted({file.parent for file in source.rglob(INFO) if fits(file.parent)})
    if len(found) == 1:
        return found[0]
    listed = ", ".join(str(folder.relative_to(options.data_dir or ".")) for folder in found)
    raise InputError(
        f"{source}: {f'name one of {listed}' if found else 'no prepared TFDS set here'}"
    )


def open_builder(folder: Path) -> Any:
    """TFDS's builder of one version's folder; what is none raises InputError."""
    try:
        return import_tfds().builder_from_directory(folder)
    except (FileNotFoundError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{folder}: cannot be read as a TFDS set ({reason})") from error


def form(builder: Any) -> str:
    return builder.info.file_format.value


def split_files(builder: Any, split: str) -> list[Path]:
    """The files of a split, all there and in a form that can be read, or InputError."""
    folder = builder.data_path
    if form(builder) not in _READERS:
        raise InputError(
            f"{folder}: is in the form {form(builder)}; expected {' or '.join(_READERS)}: convert "
            "it with tensorflow_datasets.scripts.convert_format"
        )
    files = [Path(path) for path in builder.info.splits[split].filepaths]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise InputError(f"{folder}: {absent[0]} is missing")
    return files


def _array_records(file: Path) -> Iterator[bytes]:
    with ArrayRecordDataSource([str(file)]) as rows:
        for i in range(len(rows)):
            yield rows[i]


_READERS = {"array_record": _array_records, "tfrecord": tf_records.records}
