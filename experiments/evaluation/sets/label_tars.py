"""Webdataset tars as CLIP_benchmark writes them: SPLIT/0.tar of key.webp beside key.cls.

`classnames.txt` beside the splits names the classes in the order of the numbers in key.cls.
"""

from __future__ import annotations

from pathlib import Path

from clip_jax.errors import InputError
from clip_jax.text import decode_text, escape
from experiments.data.sources.records import Ignored
from experiments.data.sources.spans import read_span
from experiments.data.sources.tar_samples import Unusable, Wanted, samples
from experiments.data.sources.tars import PICTURES, check_uncompressed, tars
from experiments.evaluation.sets.labelled import Rows, first_unique
from experiments.evaluation.sets.labels import CLASS_NAMES, known_names, resolve
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.split_names import find_split

LABEL = "cls"


def splits(folder: Path) -> list[str]:
    """Folders that hold tars."""
    return sorted(sub.name for sub in folder.iterdir() if sub.is_dir() and tars(sub))


def read(folder: Path, record: SetRecord, split: str) -> Rows:
    """One pass over the heads of all members; images are read where they lie."""
    name = find_split(folder, record, split, splits(folder))
    # 10.tar comes after 9.tar.
    files = sorted(tars(folder / name), key=lambda file: (len(file.name), file.name))
    check_uncompressed(folder / name, files)
    keys, longer, values, places = [], [], [], []
    for tar in files:
        for found in samples(tar, Wanted(PICTURES, (LABEL,), "label")):
            if isinstance(found, Ignored):
                continue
            if isinstance(found, Unusable):
                key = f"{escape(found.key)}: " if found.key else ""
                lack = f"has no picture or no {LABEL}: " if found.is_incomplete else ""
                raise InputError(f"{tar}: {key}{lack}{found.why}")
            picture = next(found.members[kind] for kind in PICTURES if kind in found.members)
            keys.append(escape(found.key))
            longer.append(f"{tar.name}/{keys[-1]}")
            values.append(_number(read_span(tar, found.members[LABEL]), f"{tar}: {keys[-1]}"))
            places.append((tar, picture))
    names = known_names(folder, record)
    if not names:
        raise InputError(f"{folder}: has no {CLASS_NAMES}; expected the classes' names, one a line")
    names, labels = resolve({split: values}, split, names, folder / name)
    return Rows(
        names, labels, first_unique(keys, longer), lambda index: read_span(*places[index])
    )


def _number(content: bytes, place: str) -> int | str:
    """What is no number stays as it is, and is found to be no class."""
    text = decode_text(content, f"{place}: {LABEL}").strip()
    return int(text) if text.isdecimal() else text
