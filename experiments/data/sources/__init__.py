"""Where images with captions, and questions, come from: one module a kind, all with the same two.

`plan(options)` looks at what lies there and cuts it into pieces; `read(options, piece)` yields the
records of one, in a fixed order, and can be called in any process.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

from clip_jax.errors import InputError
from clip_jax.text import check_encodable
from experiments.data.sources import arrow, fbc2, image_tables, parquet, tars, tfds_sets
from experiments.data.sources.plan import Options, Plan

KINDS: dict[str, ModuleType] = {
    "pictures": image_tables,
    "tar": tars,
    "parquet": parquet,
    "arrow": arrow,
    "tfds": tfds_sets,
    "fbc2": fbc2,
}


def make_plan(options: Options) -> Plan:
    """The plan of a source, whose kind is told from what lies there unless `options` say it."""
    kind = options.kind or _detect(options)
    if kind not in KINDS:
        raise InputError(f"--kind is {kind!r}; expected one of {', '.join(KINDS)}")
    if kind not in ("pictures", "tar", "fbc2"):  # the others' packages take names as UTF-8
        check_encodable(str(Path(options.data_dir, options.source)), "SOURCE")
    plan = KINDS[kind].plan(dataclasses.replace(options, kind=kind))
    if not plan.pieces:
        raise InputError(f"{options.source}: holds no records")
    return plan


def _detect(options: Options) -> str:
    source = Path(options.source)
    if options.data_dir:
        return "tfds"
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; a TFDS name needs --data-dir too")
    found = [kind for kind, module in KINDS.items() if module.fits(source)]
    # Their marks leave no doubt, whatever else lies beside them.
    found = [kind for kind in found if kind in ("arrow", "tfds")] or found
    if not found and source.is_dir():
        tars.check_uncompressed(source, [])
    if len(found) != 1:
        seen = f"could be {' or '.join(found)}" if found else "is of no known kind"
        raise InputError(f"{source}: {seen}; say --kind, one of {', '.join(KINDS)}")
    return found[0]
