"""Results as JSON: what was asked, what was found, and the versions that answered."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.text import escape, read_json

Result = dict[str, Any]
PACKAGES = ("rudolph-jax", "jax", "jaxlib", "numpy", "pillow", "sacrebleu", "nltk")


def result_folder(out: Path, name: str, content_hash: str) -> Path:
    """Of a model's results: its name, and its content's hash where names are the same."""
    slug = re.sub(r"[^\w.-]+", "-", name).strip("-")
    return out / f"{slug}-{content_hash[:8]}"


def kept_result(
    file: Path,
    task: str,
    asked: Mapping[str, Any],
    work: Callable[[], Result],
    holds: Callable[[Result], bool] = lambda earlier: True,
) -> Result:
    """work()'s result, or the one in `file` of an earlier run that was asked the same.

    It is kept in `file` with what was asked and the versions that answered. holds: whether an
    earlier result that was asked the same is still what work() would find.
    """
    asked = json.loads(json.dumps(asked))
    earlier = _read(file)
    same = earlier is not None and all(earlier.get(key) == asked[key] for key in asked)
    same = same and holds(earlier)
    if _everywhere(same):
        return earlier
    result = {"task": task, **asked, **work(), "made_with": versions()}
    if jax.process_index() == 0:
        write_result(file, result)
    return result


def write_result(file: Path, result: Result) -> None:
    # Surrogates of undecodable file names become JSON's own escapes.
    text = escape(json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False))
    replace_file(file, text + "\n")


def versions() -> Result:
    """Of what computed, and where; packages that are not installed as such are left out."""
    found: Result = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    kind = jax.devices()[0].device_kind
    return {**found, "devices": f"{jax.device_count()} x {kind}", "hosts": jax.process_count()}


def _read(file: Path) -> Result | None:
    """None where there is none, or where it was cut off."""
    try:
        found = read_json(file)
    except InputError:
        return None
    return found if isinstance(found, dict) else None


def _everywhere(flag: bool) -> bool:
    """Whether it is so on all hosts, which then do the same."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).all())
