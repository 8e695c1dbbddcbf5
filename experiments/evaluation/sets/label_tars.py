"""Webdataset tars as CLIP_benchmark writes them: SPLIT/0.tar of key.webp beside key.cls.

`classnames.txt` beside the splits names the classes in the order of the numbers in key.cls.
"""

from __future__ import annotations

from pathlib import Path

from clip_jax.errors import InputError
from experiments.data.sources.records import BadRecord, printable
from experiments.data.sources.spans import read_span
from experiments.data.sources.tars import PICTURES, records
from experiments.evaluation.sets.labelled import Rows, first_unique
from experiments.evaluation.sets.labels import CLASS_NAMES, known_names, resolve
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.split_names import find_split

LABEL = "cls"


def splits(folder: Path) -> list[str]:
    """Folders that hold tars."""
    return sorted(sub.name for sub in folder.iterdir() if sub.is_dir() and any(sub.glob("*.tar")))


def read(folder: Path, record: SetRecord, split: str) -> Rows:
    """One pass over the heads of all members; pictures are read where they lie."""
    name = find_split(folder, record, split, splits(folder))
    # 10.tar comes after 9.tar.
    tars = sorted((folder / name).glob("*.tar"), key=lambda file: (len(file.name), file.name))
    keys, longer, values, places = [], [], [], []
    for tar in tars:
        for key, members in records(tar, (*PICTURES, LABEL)):
            if isinstance(members, BadRecord):
                raise InputError(f"{tar}: {printable(f'{key}: ') if key else ''}{members}")
            picture = next((members[kind] for kind in PICTURES if kind in members), None)
            if picture is None or LABEL not in members:
                raise InputError(f"{tar}: {printable(key)}: has no picture or no {LABEL}")
            values.append(_number(read_span(tar, members[LABEL])))
            places.append((tar, picture))
            keys.append(printable(key))
            longer.append(f"{tar.name}/{keys[-1]}")
    names = known_names(folder, record)
    if not names:
        raise InputError(f"{folder}: has no {CLASS_NAMES}; expected the classes' names, one a line")
    names, labels = resolve({split: values}, split, names, folder / name)
    return Rows(
        names, labels, first_unique(keys, longer), lambda index: read_span(*places[index])
    )


def _number(content: bytes) -> int | str:
    """What is no number stays as it is, and is found to be no class."""
    text = content.decode("utf-8", "backslashreplace").strip()
    return int(text) if text.isdecimal() else text
