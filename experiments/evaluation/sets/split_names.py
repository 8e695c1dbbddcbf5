"""How folders of different origin call the splits train, validation and test."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from clip_jax.errors import InputError
from clip_jax.text import escape, normalize_name
from experiments.evaluation.sets.missing import MissingSplit
from experiments.evaluation.sets.record import SetRecord

VALIDATION = ("validation", "valid", "val", "dev")


def find_split(folder: Path, record: SetRecord, split: str, known: Collection[str]) -> str:
    """What a folder with splits `known` calls one of ours. Names are compared in NFC.

    First as the record's source calls it: ImageNet's labelled test images are called "val".
    """
    names: dict[str, str] = {}
    for name in known:
        other = names.setdefault(normalize_name(name), name)
        if other != name:
            raise InputError(f"{folder}: splits {other!a} and {name!a} have one name; rename one")
    wanted = record.source_split(normalize_name(split))
    for name in (wanted, split):
        for alias in VALIDATION if name in VALIDATION else (normalize_name(name),):
            if alias in names:
                return names[alias]
    found = escape(", ".join(sorted(known))) or "none"
    raise MissingSplit(f"{folder}: has no split {wanted!r}; found {found}")
