"""What every benchmark is told, and how lists are read from a command line."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Options:
    """rounds: turns of each peer. work: where random models are kept. original_python: of the
    environment with the original packages; None: they take no part. torch: whether PyTorch does.
    """

    rounds: int
    work: Path
    original_python: str | None
    torch: bool


def numbers(text: str) -> tuple[int, ...]:
    """1,4,32"""
    found = tuple(int(part) if part.isdecimal() else 0 for part in text.split(","))
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of positive numbers: 1,4,32")
    return found


def words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))
