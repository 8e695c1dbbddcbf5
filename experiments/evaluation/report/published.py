"""The numbers of the ruCLIP report, as data: what a measured one stands beside."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from clip_jax.text import read_json
from experiments.evaluation.clip_model import System

FILE = Path(__file__).with_name("published.json")
TRANSLATED = "opus-mt+"
# Splits, class names and templates are unpublished: less says little. (The table has OpenAI's CLIP
# at .638 on ImageNet, CLIP_benchmark has it at .683.)
NEAR = 0.05


@functools.cache
def published() -> dict[str, Any]:
    """{"source", "note", "systems": {name: {"title", "zero-shot", "linear-probe"}}}"""
    return read_json(FILE)


def numbers_of(system: System, task: str) -> dict[str, float]:
    """Of the published system that this is, by set; {} for any other. task: of the file."""
    name = f"{TRANSLATED if system.translations else ''}{system.preset}"
    return published()["systems"].get(name, {}).get(task, {})


def compare(measured: float, expected: float | None) -> str:
    """The measured number, the published one and their difference, far ones with a mark."""
    if expected is None:
        return f"{measured:.3f}"
    difference = measured - expected
    mark = "" if abs(difference) <= NEAR else " ▲" if difference > 0 else " ▼"
    return f"{measured:.3f} ({expected:.3f}, {difference:+.3f}{mark})"
