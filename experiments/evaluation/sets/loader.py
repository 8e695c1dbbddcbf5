"""A labelled set by its name, from wherever it is on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from clip_jax.errors import InputError
from clip_jax.paths import as_path, is_remote
from clip_jax.text import escape, normalize_name
from experiments.data.source import build_builtin_set
from experiments.data.sources import class_folders, image_tables, parquet, tars, tfds_sets
from experiments.data.sources.labels import LabelledRows, find_split
from experiments.evaluation.sets.labelled_set import LabelledSet, join, labelled_set
from experiments.evaluation.sets.record import BUILTIN, FOLDER, SetRecord, own_record
from experiments.evaluation.sets.table import RECORDS

DATA_DIR = "~/tensorflow_datasets"
TFDS = "TFDS"
LAYOUTS: dict[str, ModuleType] = {
    TFDS: tfds_sets,
    "class folders": class_folders,
    "tables": image_tables,
    "webdataset tars": tars,
    "Parquet files": parquet,
}
# The layouts of a few large files, which may be in a bucket.
IN_BUCKETS = (tfds_sets, tars, parquet)


class MissingSet(InputError):
    """A set is not on disk; the one line says what to fetch and where to put it."""


def open_set(
    name: str,
    split: str = "test",
    data_dir: str | Path = DATA_DIR,
    records: Mapping[str, SetRecord] = RECORDS,
) -> LabelledSet:
    """Opens a split of one of the known sets, or of a user's own in a folder called `name`.

    split: train, validation, test or another of the set's; "train+validation" is both. data_dir:
    where TFDS sets are, and folders by the sets' names; built-in sets are built there.
    Raises MissingSet where the set is not on disk, InputError where it is not the expected one.
    """
    place = find_path(name)
    if name in records:
        record = records[name]
        place = _locate(record, as_path(data_dir).expanduser())
    elif place.is_dir():
        record = own_record(escape(normalize_name(place.resolve().name)))
    else:
        known = ", ".join(records)
        raise InputError(f"data set {name!r} is unknown; expected a folder or one of {known}")
    layout = _layout(place)
    return join([_open_split(place, layout, record, part) for part in split.split("+")])


def find_path(path: str | Path) -> Path:
    """Returns a path of the user's as it is on disk, where names may be in another normal form.

    One that does not exist is returned as it is.
    """
    path = as_path(path).expanduser()
    if path.exists() or path.parent == path or is_remote(path):
        return path
    parent, wanted = find_path(path.parent), normalize_name(path.name)
    if parent.is_dir():
        for each in sorted(parent.iterdir()):
            if normalize_name(each.name) == wanted:
                return each
    return path


def _locate(record: SetRecord, data_dir: Path) -> Path:
    """Returns the version of TFDS, or else a folder by the set's own name."""
    if record.source == BUILTIN:
        return build_builtin_set(record.name, data_dir)
    place, folder = data_dir / record.source.replace(":", "/"), data_dir / record.name
    for candidate in (place, folder) if record.is_tfds else (folder,):
        if _layouts(candidate):
            return candidate
    hint = record.download_hint.format(place=place, folder=folder)
    raise MissingSet(f"{record.name}: not in {data_dir}; {hint}")


def _layouts(folder: Path) -> list[str]:
    """Returns the layouts that fit what is there."""
    if not folder.is_dir():
        return []
    readers = LAYOUTS
    if is_remote(folder):
        readers = {name: reader for name, reader in LAYOUTS.items() if reader in IN_BUCKETS}
    return [name for name, reader in readers.items() if reader.label_splits(folder)]


def _layout(folder: Path) -> str:
    """Returns the one that fits."""
    found = _layouts(folder)
    if len(found) != 1:
        seen = f"could be {' or '.join(found)}" if found else f"is none of {', '.join(LAYOUTS)}"
        raise InputError(f"{folder}: {seen}; expected one layout of a labelled set")
    return found[0]


def _open_split(folder: Path, layout: str, record: SetRecord, split: str) -> LabelledSet:
    reader = LAYOUTS[layout]
    name = find_split(folder, record, split, reader.label_splits(folder))
    rows = reader.read_labels(folder, record, name)
    _check(record, split, rows)
    version = tfds_sets.version(folder) if layout == TFDS else FOLDER
    return labelled_set(record.name, split, version, rows)


def _check(record: SetRecord, split: str, rows: LabelledRows) -> None:
    """Raises InputError unless the numbers of classes and examples are the expected ones."""
    found = len(rows.class_names)
    if record.classes is not None and found != record.classes:
        raise InputError(f"{record.name}: has {found} classes; expected {record.classes}")
    expected = record.examples.get(split)
    if expected is not None and record.fixed_size and len(rows.labels) != expected:
        raise InputError(
            f"{record.name}: split {split!r} has {len(rows.labels)} examples; expected {expected}"
        )
