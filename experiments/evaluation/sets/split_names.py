"""How folders of different origin call the splits train, validation and test."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from experiments.evaluation.sets.missing import MissingSplit
from experiments.evaluation.sets.record import SetRecord

VALIDATION = ("validation", "valid", "val", "dev")


def find_split(folder: Path, record: SetRecord, split: str, known: Collection[str]) -> str:
    """What a folder with splits `known` calls one of ours.

    First as the record's source calls it: ImageNet's labelled test pictures are called "val".
    """
    wanted = record.source_split(split)
    for name in (wanted, split):
        for alias in VALIDATION if name in VALIDATION else (name,):
            if alias in known:
                return alias
    found = ", ".join(sorted(known)) or "none"
    raise MissingSplit(f"{folder}: has no split {wanted!r}; found {found}")
