"""One system, the sets it is measured on, and where its results are kept."""

from __future__ import annotations

import dataclasses
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

from experiments.atomic import replace_file
from experiments.evaluation.encoder import Encoder, PictureSet
from experiments.evaluation.prompts import Prompts, prompts_for
from experiments.evaluation.sets import RECORDS, LabelledSet, SetRecord, open_set
from experiments.evaluation.sets.record import own_record

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Bench:
    """encoder: of the system. data_dir: where sets lie. out: the folder of results, None: they
    are not kept. class_names: a file of prompts for all sets, None: the project's.
    """

    encoder: Encoder
    data_dir: Path
    out: Path | None = None
    class_names: Path | None = None

    @property
    def name(self) -> str:
        return self.encoder.system.name

    @property
    def folder(self) -> Path | None:
        """Of this system's results: its name, and its content's hash where names are the same."""
        slug = re.sub(r"[^\w.-]+", "-", self.name).strip("-")
        return self.out and self.out / f"{slug}-{self.encoder.system.content_hash[:8]}"

    def open(self, name: str, split: str) -> LabelledSet:
        return open_set(name, split, self.data_dir)

    def prompts(self, pictures: LabelledSet) -> Prompts:
        system = self.encoder.system
        # A translator is given Russian prompts.
        return prompts_for(pictures, system.language, self.class_names)

    def about(self, pictures: PictureSet) -> Result:
        """What a number needs to be traced."""
        return {
            "system": self.encoder.system.about(),
            "set": pictures.name,
            "title": title_of(pictures.name),
            "version": getattr(pictures, "version", None),
            "split": pictures.split,
            "source_sha256": pictures.source_hash,
        }

    def kept(
        self, task: str, name: str, asked: Mapping[str, Any], work: Callable[[], Result]
    ) -> Result:
        """work()'s result, or the one of an earlier run that was asked the same.

        It is kept as FOLDER/TASK/NAME.json, with what was asked and the versions that answered.
        """
        if self.folder is None:
            return {**asked, **work()}
        file = self.folder / task / f"{name}.json"
        asked = json.loads(json.dumps(asked, ensure_ascii=False))
        earlier = _read(file)
        same = earlier is not None and all(earlier.get(key) == asked[key] for key in asked)
        if _everywhere(same):
            return earlier
        result = {"task": task, **asked, **work(), "made_with": versions()}
        if jax.process_index() == 0:
            text = json.dumps(result, ensure_ascii=False, indent=1, allow_nan=False)
            replace_file(file, text + "\n")
        return result


def record_of(name: str) -> SetRecord:
    """name: of a known set, or a user's own or its folder."""
    return RECORDS.get(name) or own_record(Path(name).name)


def title_of(name: str) -> str:
    return record_of(name).title


def versions() -> dict[str, Any]:
    """Of what computed, and where; packages that are not installed as such are left out."""
    found: dict[str, Any] = {"python": platform.python_version()}
    for package in ("rudolph-jax", "jax", "jaxlib", "numpy", "pillow"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    kind = jax.devices()[0].device_kind
    return {**found, "devices": f"{jax.device_count()} x {kind}", "hosts": jax.process_count()}


def _read(file: Path) -> Result | None:
    """None where there is none, or where it was cut off."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _everywhere(flag: bool) -> bool:
    """Whether it is so on all hosts, which then do the same."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).all())
