"""What a benchmark finds: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BAR = 30  # characters of the longest bar


@dataclasses.dataclass(frozen=True)
class Row:
    """rate: units a second by the clock. processor: the same of processor time, of all cores
    together. beside: both of the base in the same rounds, where it ran beside each row.
    roof: what the machine's limits (`roofline.py`) would allow, where it is known. drift: how far
    results lie from the base's, as a share of their spread; None: not compared.
    peak: the most bytes of memory that the process had; None: not told.
    """

    name: str
    rate: float
    processor: float
    beside: tuple[float, float] | None = None
    roof: float | None = None
    drift: float | None = None
    peak: int | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """base: the row that the others are compared with. unit: of the rates, without "a second"."""

    title: str
    unit: str
    base: str
    rows: Sequence[Row]

    def ratios(self, row: Row) -> tuple[float, float]:
        """How many times as fast as the base: by the clock, and by processor time."""
        base = next(other for other in self.rows if other.name == self.base)
        rate, processor = row.beside or (base.rate, base.processor)
        return row.rate / rate, row.processor / processor

    def lines(self) -> list[str]:
        """Markdown, with a bar for each ratio."""
        ratios = [self.ratios(row) for row in self.rows]
        longest = max(ratio for ratio, _ in ratios)
        found = [
            f"**{self.title}**", "",
            f"| | {self.unit}/s | /s of processor | x {self.base} | of processor | of the roof "
            "| drift | GB at most | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for row, (ratio, of_processor) in zip(self.rows, ratios, strict=True):
            cells = (
                row.name,
                number(row.rate),
                number(row.processor),
                f"{ratio:.2f}",
                f"{of_processor:.2f}",
                "" if row.roof is None else f"{row.rate / row.roof:.0%}",
                "" if row.drift is None else f"{row.drift:.1e}",
                "" if row.peak is None else f"{row.peak / 1e9:.2f}",
                "#" * max(round(BAR * ratio / longest), 1),
            )
            found.append(f"| {' | '.join(cells)} |")
        return found

    def to_json(self) -> dict[str, Any]:
        rows = [{**dataclasses.asdict(row), "ratio": self.ratios(row)[0]} for row in self.rows]
        return {"title": self.title, "unit": self.unit, "base": self.base, "rows": rows}


@dataclasses.dataclass(frozen=True)
class Series:
    """series: name -> a figure at each of `at`."""

    title: str
    by: str
    unit: str
    at: Sequence[float | str]
    series: Mapping[str, Sequence[float]]

    def lines(self) -> list[str]:
        """Markdown, a row for each of `at`, with a bar for the first series."""
        first = next(iter(self.series.values()))
        found = [
            f"**{self.title}**, {self.unit}", "",
            f"| {self.by} | " + " | ".join(self.series) + " | |",
            "|---|" + "---|" * len(self.series) + "---|",
        ]  # fmt: skip
        for place, *row in zip(self.at, *self.series.values(), strict=True):
            bar = "#" * max(round(BAR * row[0] / max(first)), 1)
            found.append(f"| {place} | " + " | ".join(map(number, row)) + f" | {bar} |")
        return found

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def number(value: float) -> str:
    """Three digits that count: 1,234  12.3  0.0123"""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_json(file: Path, results: Mapping[str, Any]) -> None:
    """Beside its place, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)
