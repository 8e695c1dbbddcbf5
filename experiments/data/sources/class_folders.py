"""A tree of class folders, SPLIT/CLASS/*.jpg: the folder's name, in NFC, is the class.

A folder is a class where it holds an image itself. Hidden and system folders, folders without an
image, folders inside of classes, and files that are no images are ignored and listed.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from clip_jax.errors import InputError
from clip_jax.image_file import IMAGE_SUFFIXES
from clip_jax.system_folders import is_system
from clip_jax.text import escape, normalize_name
from experiments.data.sources.labels import LabelledRows, LabelSource

NAMED = 5  # folders or files of a list that are named


def label_splits(folder: Path) -> list[str]:
    """Returns the folders whose own folders hold images."""
    return [split.name for split in _folders(folder) if any(map(_has_image, _folders(split)))]


def read_labels(folder: Path, source: LabelSource, split: str) -> LabelledRows:
    """Reads one of `label_splits`; classes are those of all splits, in the order of their names.

    Folders whose names differ in their normal form alone are one class.
    """
    known = label_splits(folder)
    place = folder / split
    classes = {name: list(filter(_has_image, _folders(folder / name))) for name in known}
    names = sorted({normalize_name(each.name) for listed in classes.values() for each in listed})
    labels = {name: label for label, name in enumerate(names)}
    contents = [_Contents.of(each) for each in classes[split]]
    files = [file for content in contents for file in content.images]

    def image(index: int) -> bytes:
        try:
            return files[index].read_bytes()
        except OSError as error:
            raise InputError(
                f"{escape(str(files[index]))}: image cannot be read ({error.strerror})"
            ) from error

    tree = [folder, *(folder / name for name in known)]
    used = {*tree, *(each for listed in classes.values() for each in listed)}
    loose = _Contents.of(place)
    ignored = (
        *_folders_ignored(folder, tree, used),
        *_listed("folders inside of classes", folder, [f for c in contents for f in c.folders]),
        *_listed("images outside of classes", folder, loose.images),
        *_listed(
            "files that are no images", folder, [f for c in (loose, *contents) for f in c.others]
        ),
    )
    return LabelledRows(
        names,
        [labels[normalize_name(file.parent.name)] for file in files],
        [f"{file.parent.name}/{file.name}" for file in files],
        image,
        ignored,
    )


@dataclasses.dataclass(frozen=True)
class _Contents:
    """Entries of a folder, each kind in the order of names.

    A link that leads nowhere counts as a file: as an image it is found to be unreadable.
    """

    images: list[Path]
    others: list[Path]
    folders: list[Path]

    @classmethod
    def of(cls, folder: Path) -> _Contents:
        found = cls([], [], [])
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                kind = found.images if _is_image(entry.name) else found.others
                (found.folders if entry.is_dir() else kind).append(Path(entry.path))
        return found


def _folders(folder: Path) -> list[Path]:
    return [each for each in _Contents.of(folder).folders if not is_system(each.name)]


def _has_image(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(_is_image(entry.name) and not entry.is_dir() for entry in entries)


def _is_image(name: str) -> bool:
    return not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES


def _folders_ignored(folder: Path, tree: Sequence[Path], used: Collection[Path]) -> list[str]:
    """Lists the folders in `tree`, the set's own and its splits', that are not in use."""
    others = [f for parent in tree for f in _Contents.of(parent).folders if f not in used]
    system = [each for each in others if is_system(each.name)]
    return [
        *_listed("hidden or system folders", folder, system),
        *_listed("folders without images", folder, [f for f in others if f not in system]),
    ]


def _listed(what: str, folder: Path, found: Sequence[Path]) -> list[str]:
    """Returns one line, or none where nothing was found."""
    names = [escape(str(each.relative_to(folder))) for each in found[:NAMED]]
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return [f"{len(found)} {what}: {', '.join(names)}{more}"] if found else []
