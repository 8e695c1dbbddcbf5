"""Readers of sources: one module a layout, all with the same functions.

`plan(config)` looks at what lies there and cuts it into chunks; `read(config, chunk)` yields the
records of one, in a fixed order, and can be called in any process.
"""

from __future__ import annotations

import dataclasses
from types import ModuleType

from clip_jax.errors import InputError
from clip_jax.text import check_encodable
from experiments.data.sources import arrow, fbc2, image_tables, parquet, tars, tfds_sets
from experiments.data.sources.groups import BY_KEY
from experiments.data.sources.read_plan import ReadPlan, SourceConfig

KINDS: dict[str, ModuleType] = {
    "pictures": image_tables,
    "tar": tars,
    "parquet": parquet,
    "arrow": arrow,
    "tfds": tfds_sets,
    "fbc2": fbc2,
}


def make_plan(config: SourceConfig) -> ReadPlan:
    """Plans a source, whose kind is found from what is there unless `config` says it."""
    kind = config.kind or _detect(config)
    if kind not in KINDS:
        raise InputError(f"--kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if kind not in ("pictures", "tar", "fbc2"):  # the others' packages take names as UTF-8
        check_encodable(str(config.path), "SOURCE")
    named = kind in ("pictures", "tar") and config.schema.has_image
    if config.group_by in BY_KEY and not named:
        raise InputError(
            f"--group-by is {config.group_by!r}, and the records here have no file names; "
            "name a column"
        )
    plan = KINDS[kind].plan(dataclasses.replace(config, kind=kind))
    if not plan.chunks:
        raise InputError(f"{config.source}: holds no records")
    return plan


def _detect(config: SourceConfig) -> str:
    if config.data_dir:
        return "tfds"
    source = config.path
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; a TFDS name needs --data-dir too")
    found = [kind for kind, module in KINDS.items() if module.matches(source)]
    # Their marks leave no doubt, whatever else lies beside them.
    found = [kind for kind in found if kind in ("arrow", "tfds")] or found
    if not found and source.is_dir():
        tars.check_uncompressed(source, [])
        image_tables.check_table(source, config)
    if len(found) != 1:
        seen = f"could be {' or '.join(found)}" if found else "is of no known kind"
        raise InputError(f"{source}: {seen}; say --kind, one of {', '.join(KINDS)}")
    return found[0]
