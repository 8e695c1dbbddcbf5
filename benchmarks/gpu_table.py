"""Rows of `benchmarks.gpu`: JSON for programs, Markdown for docs/performance.md."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.result import number
from clip_jax.atomic_file import replace_file

VARIANTS = ("default", "plain", "torch")
HEAD = ("what", "unit", "default", "plain", "x plain", "PyTorch", "x PyTorch", "of the roof", "GB")


@dataclasses.dataclass
class Row:
    """Hold what was measured of one piece of work; filled in as the variants are run.

    rates: units a second by variant. errors: one line by variant where it failed or was left out.
    roof: units a second that published peaks allow; None: the device's are not known.
    bytes: of device memory that the default took; None: not known.
    note: what the variants differ in, the batch.
    """

    what: str
    unit: str
    note: str
    rates: dict[str, float] = dataclasses.field(default_factory=dict)
    errors: dict[str, str] = dataclasses.field(default_factory=dict)
    roof: float | None = None
    bytes: int | None = None

    def ratio(self, variant: str) -> float | None:
        """Return how many times as fast as a variant the default is."""
        rate, other = self.rates.get("default"), self.rates.get(variant)
        return rate / other if rate and other else None

    @property
    def roof_share(self) -> float | None:
        rate = self.rates.get("default")
        return rate / self.roof if rate and self.roof else None

    def to_json(self) -> dict[str, Any]:
        ratios = {f"x_{variant}": self.ratio(variant) for variant in VARIANTS[1:]}
        return {**dataclasses.asdict(self), **ratios, "roof_share": self.roof_share}

    def cells(self) -> list[str]:
        """Return the cells of HEAD; an error stands in its variant's cell, shortened."""
        default, plain, torch = (self._cell(variant) for variant in VARIANTS)
        ratios = [self.ratio(variant) for variant in VARIANTS[1:]]
        x_plain, x_torch = ("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)
        share = "" if self.roof_share is None else f"{self.roof_share:.1%}"
        size = "" if self.bytes is None else f"{self.bytes / 1e9:.2f}"
        return [f"{self.what}, {self.note}", f"{self.unit}/s", default, plain, x_plain, torch,
                x_torch, share, size]  # fmt: skip

    def _cell(self, variant: str) -> str:
        if variant in self.rates:
            return number(self.rates[variant])
        return self.errors.get(variant, "")[:60].replace("|", "/")


def write(out: Path, machine: Mapping[str, Any], rows: list[Row]) -> None:
    """Replace the JSON file and the Markdown file beside it, each as a whole."""
    data = {"machine": dict(machine), "rows": [row.to_json() for row in rows]}
    replace_file(out, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    replace_file(out.with_suffix(".md"), to_markdown(machine, rows))


def to_markdown(machine: Mapping[str, Any], rows: list[Row]) -> str:
    """Return the machine's line and the table."""
    about = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = [about, "", f"| {' | '.join(HEAD)} |", "|---" * len(HEAD) + "|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    return "\n".join(lines) + "\n"
