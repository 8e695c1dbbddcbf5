"""Released models by name, for `load("ruclip-vit-base-patch32-384")`.

This package knows no names. Others do, and say so as an entry point of the group
"rudolph_jax.released": a function of a name and a kind ("clip", "rudolph", "vqgan", "upscaler")
that returns a model folder, or raises InputError. This distribution's own is
`converters.released.released`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from clip_jax.arguments import check_path
from clip_jax.errors import InputError
from clip_jax.paths import as_path

GROUP = "rudolph_jax.released"


def model_folder_of(folder: Any, kind: str) -> Path:
    """Returns the folder of a path or of a released model's name.

    kind: of the model that a name is looked up for.
    A path, and whatever exists, is returned as it is: a Path, or a text with a separator.
    """
    path = as_path(check_path("folder", folder))
    separators = [mark for mark in (os.sep, os.altsep) if mark]
    is_name = isinstance(folder, str) and not any(mark in folder for mark in separators)
    if not is_name or folder in ("", ".", "..") or folder.startswith("~") or path.exists():
        return path
    reasons = []
    for find in _sources():
        try:
            return Path(find(folder, kind))
        except InputError as error:
            reasons.append(str(error))
    # Without any source the folder is missed by whoever reads it.
    if not reasons:
        return path
    raise InputError(f"{folder}: not a model folder; {'; '.join(reasons)}")


def _sources() -> list[Callable[[str, str], Any]]:
    return [entry.load() for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name)]
