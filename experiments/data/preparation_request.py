"""The request of a preparation, `prepare.json`: what a folder is made of, and how."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from clip_jax.atomic_file import create_file
from clip_jax.errors import InputError
from clip_jax.text import escape, read_json
from experiments.data.sources.read_plan import ReadPlan, SourceConfig
from experiments.data.sources.schema import CODES
from experiments.data.sources.shards import WriteConfig, json_line
from experiments.data.sources.tfds_metadata import INFO
from experiments.workdir.lock import FILE_NAME as LOCK

REQUEST = "prepare.json"
# Of the results of chunks. 2: they count the source's items; quotes and keys of tars have rules.
# 3: notes on images and captions lie beside them.
FORMAT = 3
# 4: rows that are left out belong to the chunk that they lie in.
FORMAT_OF_TABLES = 4
_DEFAULTS = {**dataclasses.asdict(SourceConfig("")), **dataclasses.asdict(WriteConfig())}


def claim(
    out: Path, plan: ReadPlan, write_config: WriteConfig, codes: dict[str, Any] | None
) -> None:
    """Writes the request; InputError where the folder holds anything else.

    Of several machines at once the first one writes it, and the others compare theirs with it.
    """
    request = {
        **dataclasses.asdict(plan.config),
        **dataclasses.asdict(write_config),
        "source": str(plan.config.path.resolve()),
        CODES: codes,
        "files": plan.files,
    }
    del request["chunk_records"]  # follows from shard_records
    file = out / REQUEST
    written = FORMAT_OF_TABLES if plan.config.kind == "pictures" else FORMAT
    if not file.exists():
        _check_empty(out)
        if create_file(file, json_line({"format": written, **request})):
            return
    begun = read_json(file)
    if not isinstance(begun, dict):
        raise InputError(f"{file}: holds no object; remove {out} or name another folder")
    finished = (out / INFO).exists()
    if not finished and begun.get("format") != written:
        raise InputError(
            f"{out}: was begun by another version, which read and counted otherwise; remove it or "
            "name another folder"
        )
    for key, value in request.items():
        # Sets of earlier versions lack the newer fields.
        found = begun.get(key, _DEFAULTS.get(key))
        if found == value:
            continue
        state = "holds a set prepared" if finished else "was begun"
        difference = f"{key} = {found!r}, not {value!r}"
        if key == "files":
            listed = found or {}
            names = sorted(n for n in listed | value if listed.get(n) != value.get(n))
            difference = f"another state of the source: {escape(names[0])} has changed"
        raise InputError(
            f"{out}: {state} with {difference}; go on with what it was begun with, remove it, or "
            "name another folder"
        )


def _check_empty(out: Path) -> None:
    """Raises InputError where the folder holds files of none who prepares."""
    ours = (LOCK, f".{REQUEST}.")  # another machine's request, not yet at its name
    if any(not path.name.startswith(ours) for path in out.iterdir()) and not (
        out / REQUEST
    ).exists():
        raise InputError(f"{out}: already exists; remove it or name another folder")
