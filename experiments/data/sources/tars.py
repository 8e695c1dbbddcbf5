"""Tar files in the manner of webdataset: key.jpg beside key.txt, key.json or key.cls.

Members are read where they lie; nothing is unpacked, whatever their names are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip_jax.errors import InputError
from clip_jax.image_file import IMAGE_SUFFIXES
from clip_jax.paths import local_copy
from clip_jax.text import decode_text, escape, parse_json
from experiments.data.sources.columns import read_texts
from experiments.data.sources.files import read_range
from experiments.data.sources.groups import group_column, group_value
from experiments.data.sources.labels import (
    CLASS_NAMES,
    LabelledRows,
    LabelSource,
    first_unique,
    known_class_names,
    resolve_labels,
)
from experiments.data.sources.read_plan import ReadPlan, SourceConfig, file_fingerprints
from experiments.data.sources.records import (
    BadRecord,
    Candidate,
    Ignored,
    ImagePlace,
    Rejected,
)
from experiments.data.sources.tar_samples import Sample, Unusable, Wanted, samples

UNIT = "members"
IMAGES = tuple(suffix.removeprefix(".") for suffix in IMAGE_SUFFIXES)
TEXTS = ("txt", "json")
LABEL = "cls"
COMPRESSED = (
    ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4",
)  # fmt: skip
_COMPRESSED_MARKS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")


def matches(source: Path) -> bool:
    if source.is_file():
        return _is_tar(source) or is_compressed(source)
    return bool(tars(source))


def tars(folder: Path) -> list[Path]:
    """The tars of a folder, by name."""
    return sorted(file for file in folder.iterdir() if _is_tar(file))


def is_compressed(file: Path) -> bool:
    """Return whether a file's name is that of a compressed tar."""
    return file.is_file() and file.name.lower().endswith(COMPRESSED)


def check_uncompressed(source: Path, files: list[Path]) -> None:
    """Raises InputError for a compressed tar, by content among `files`, by name beside them."""
    if is_compressed(source):
        raise _compressed(source)
    for file in files:
        if read_range(file, (0, 6)).startswith(_COMPRESSED_MARKS):
            raise _compressed(file)
    if source.is_dir():
        for file in sorted(source.iterdir()):
            if is_compressed(file):
                raise _compressed(file)


def plan(config: SourceConfig) -> ReadPlan:
    """Chunks are whole tar files, named inside the source's folder."""
    source = config.path
    folder = source if source.is_dir() else source.parent
    files = tars(source) if source.is_dir() else [source] * source.is_file()
    check_uncompressed(source, files)
    if not files:
        raise InputError(f"{source}: no *.tar here")
    return ReadPlan(config, file_fingerprints(folder, files), [file.name for file in files])


def read(config: SourceConfig, chunk: str) -> Iterator[Candidate | Rejected | Ignored]:
    source = config.path
    file = source / chunk if source.is_dir() else source
    with local_copy(file) as local:  # members are read by the thousand
        yield from _records(local, chunk, config)


def _records(
    file: Path, chunk: str, config: SourceConfig
) -> Iterator[Candidate | Rejected | Ignored]:
    for found in samples(file, _wanted(config)):
        if isinstance(found, Ignored):
            yield found
            continue
        where = {"file": escape(chunk)}
        if found.key is not None:
            where["key"] = escape(found.key)
        try:
            if not isinstance(found, Sample):
                raise BadRecord(found.why)
            members = {kind: read_range(file, place) for kind, place in found.members.items()}
            kind = next((kind for kind in IMAGES if kind in members), "")
            place = ImagePlace(chunk, *found.members[kind]) if kind else None
            texts, group = _texts(members, config)
            key = f"{chunk}/{found.key}"
            yield Candidate(
                key, where, members.get(kind), texts, items=found.items, group=group, place=place
            )
        except BadRecord as error:
            yield Rejected(where, str(error), found.items)


def label_splits(folder: Path) -> list[str]:
    """Returns the folders that hold tars, as CLIP_benchmark writes them: SPLIT/0.tar."""
    return sorted(sub.name for sub in folder.iterdir() if sub.is_dir() and tars(sub))


def read_labels(folder: Path, source: LabelSource, split: str) -> LabelledRows:
    """Reads one of `label_splits` in one pass over the heads of all members.

    `classnames.txt` beside the splits names the classes in the order of the numbers in key.cls.
    """
    # 10.tar comes after 9.tar.
    files = sorted(tars(folder / split), key=lambda file: (len(file.name), file.name))
    check_uncompressed(folder / split, files)
    keys, longer, values, places = [], [], [], []
    for tar in files:
        with local_copy(tar) as local:
            for found in samples(local, Wanted(IMAGES, (LABEL,), "label")):
                if isinstance(found, Ignored):
                    continue
                if isinstance(found, Unusable):
                    key = f"{escape(found.key)}: " if found.key else ""
                    lack = f"has no image or no {LABEL}: " if found.is_incomplete else ""
                    raise InputError(f"{tar}: {key}{lack}{found.why}")
                keys.append(escape(found.key))
                longer.append(f"{tar.name}/{keys[-1]}")
                label = read_range(local, found.members.pop(LABEL))
                label = decode_text(label, f"{tar}: {keys[-1]}: {LABEL}").strip()
                # Text that is no number stays, and is found to be no class.
                values.append(int(label) if label.isdecimal() else label)
                places.append((tar, *found.members.values()))
    names = known_class_names(folder, source)
    if not names:
        raise InputError(f"{folder}: has no {CLASS_NAMES}; expected the classes' names, one a line")
    names, labels = resolve_labels({split: values}, split, names, folder / split)
    return LabelledRows(
        names, labels, first_unique(keys, longer), lambda index: read_range(*places[index])
    )


def _wanted(config: SourceConfig) -> Wanted:
    """Captions are in key.txt or key.json; in the latter alone where a column is named."""
    schema = config.schema
    named = config.caption_column or group_column(config.group_by)
    captions = config.form == "captions" and not named
    texts = TEXTS if captions else ("json",)
    return Wanted(
        IMAGES if schema.has_image else (), texts, schema.columns[schema.repeated_feature].noun
    )


def _texts(members: dict[str, bytes], config: SourceConfig) -> tuple[dict[str, Any], Any]:
    """Returns the texts of a sample by feature, and its group, which its json alone can name."""
    if "txt" in members:
        return {"captions": [members["txt"]]}, None
    try:
        about = parse_json(members["json"], "json")
    except InputError as error:
        raise BadRecord(f"json cannot be read: {str(error).partition(': ')[2]}") from error
    if not isinstance(about, dict):
        raise BadRecord("json holds no object")
    return read_texts(about, config), group_value(about, config.group_by)


def _is_tar(file: Path) -> bool:
    return file.suffix.lower() == ".tar" and file.is_file()


def _compressed(file: Path) -> InputError:
    return InputError(
        f"{escape(str(file))}: is a compressed tar; uncompress it first, for instance with gunzip"
    )
