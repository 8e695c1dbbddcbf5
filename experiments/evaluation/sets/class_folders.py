"""A tree of class folders, SPLIT/CLASS/*.jpg: the folder's name is the class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from clip_jax.errors import InputError
from experiments.evaluation.sets.labelled import Rows
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.split_names import find_split

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def splits(folder: Path) -> list[str]:
    """Folders whose own folders hold pictures."""
    return [
        split.name for split in _folders(folder)
        if any(next(_pictures(of_class), None) for of_class in _folders(split))
    ]  # fmt: skip


def read(folder: Path, record: SetRecord, split: str) -> Rows:
    """Classes of all splits together, in the order of their names."""
    known = splits(folder)
    place = folder / find_split(folder, record, split, known)
    names = sorted({of_class.name for name in known for of_class in _folders(folder / name)})
    labels = {name: label for label, name in enumerate(names)}
    files = [file for of_class in _folders(place) for file in sorted(_pictures(of_class))]

    def image(index: int) -> bytes:
        try:
            return files[index].read_bytes()
        except OSError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{files[index]}: picture cannot be read ({reason})") from error

    return Rows(
        names,
        [labels[file.parent.name] for file in files],
        [f"{file.parent.name}/{file.name}" for file in files],
        image,
    )


def _folders(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.is_dir() and not f.name.startswith("."))


def _pictures(folder: Path) -> Iterator[Path]:
    return (
        file for file in folder.iterdir()
        if file.suffix.lower() in PICTURES and not file.name.startswith(".")
    )  # fmt: skip
