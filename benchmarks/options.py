"""Options of every benchmark, and parsers of lists on the command line."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Options:
    """Hold what all benchmarks need.

    rounds: timed calls of each implementation.
    work: folder of the models with random weights.
    original_python: interpreter with the original packages; None: they are left out.
    torch: whether PyTorch is compared.
    """

    rounds: int
    work: Path
    original_python: str | None
    torch: bool


def positive_ints(text: str) -> tuple[int, ...]:
    """Parse 1,4,32."""
    values = tuple(int(part) if part.isdecimal() else 0 for part in text.split(","))
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of positive numbers: 1,4,32")
    return values


def comma_separated(text: str) -> tuple[str, ...]:
    """Parse a,b."""
    return tuple(text.split(","))
