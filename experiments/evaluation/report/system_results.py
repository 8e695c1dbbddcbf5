"""Joins what was measured of a system with the numbers of the ruCLIP report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clip_jax.text import read_json
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.run import Result

FILE = Path(__file__).with_name("published.json")
TRANSLATED = "opus-mt+"
# Splits, class names and templates are unpublished: less says little. (The table has OpenAI's CLIP
# at .638 on ImageNet, CLIP_benchmark has it at .683.)
TOLERANCE = 0.05


@functools.cache
def published() -> dict[str, Any]:
    """{"source", "note", "systems": {name: {"title", "zero-shot", "linear-probe"}}}"""
    return read_json(FILE)


def published_numbers(model: ClipModel, task: str) -> dict[str, float]:
    """The published numbers of this very model, by set; {} for any other. task: of the file."""
    name = f"{TRANSLATED if model.translations else ''}{model.preset}"
    return published()["systems"].get(name, {}).get(task, {})


def compare(measured: float, expected: float | None) -> str:
    """The measured number, the published one and their difference, far ones with a mark."""
    if expected is None:
        return f"{measured:.3f}"
    difference = measured - expected
    mark = "" if abs(difference) <= TOLERANCE else " ▲" if difference > 0 else " ▼"
    return f"{measured:.3f} ({expected:.3f}, {difference:+.3f}{mark})"


@dataclasses.dataclass
class SystemResults:
    """Holds what is known of a system, results by the set's name.

    published: task -> set -> number.
    """

    name: str
    metadata: Mapping[str, Any]
    published: Mapping[str, Mapping[str, float]]
    zero_shot: dict[str, Result] = dataclasses.field(default_factory=dict)
    probes: dict[str, Result] = dataclasses.field(default_factory=dict)
    retrieval: dict[str, Result] = dataclasses.field(default_factory=dict)
    missing: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: Result | None = None
    matrix: bytes | None = None

    def zero_shots(self) -> dict[str, float]:
        return {name: result["value"] for name, result in self.zero_shot.items()}

    def probe_of_most(self) -> dict[str, float]:
        """The probe with the most images, the last of each list."""
        return {name: result["shots"][-1]["mean"] for name, result in self.probes.items()}
