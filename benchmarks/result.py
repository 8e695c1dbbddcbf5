"""Results of a benchmark: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BAR = 30  # characters of the longest bar
# Keys of a row in the JSON file -> fields of Row. The keys stay when a field is renamed, so that
# files of different dates can be compared.
JSON_KEYS = {
    "name": "name",
    "rate": "rate",
    "processor": "cpu_rate",
    "beside": "baseline_rates",
    "roof": "roofline_rate",
    "drift": "max_error",
    "peak": "peak_bytes",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Hold what was measured of one implementation.

    rate: units a second of wall time.
    cpu_rate: units a second of CPU time, of all cores together.
    baseline_rates: both of the base in the same rounds, where it ran beside each row.
    roofline_rate: units a second that the machine's limits allow (`roofline.py`); None: not known.
    max_error: largest difference of outputs from the base's, relative to their standard deviation
        unless the benchmark says otherwise; None: not compared.
    peak_bytes: peak memory of the process; None: not known.
    """

    name: str
    rate: float
    cpu_rate: float
    baseline_rates: tuple[float, float] | None = None
    roofline_rate: float | None = None
    max_error: float | None = None
    peak_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {key: getattr(self, field) for key, field in JSON_KEYS.items()}


@dataclasses.dataclass(frozen=True)
class Table:
    """Compare rows.

    base: name of the row that the others are compared with.
    unit: of the rates, without "a second".
    """

    title: str
    unit: str
    base: str
    rows: Sequence[Row]

    def ratios(self, row: Row) -> tuple[float, float]:
        """Return how many times as fast as the base a row is, by wall and by CPU time."""
        base = next(other for other in self.rows if other.name == self.base)
        rate, cpu_rate = row.baseline_rates or (base.rate, base.cpu_rate)
        return row.rate / rate, row.cpu_rate / cpu_rate

    def lines(self) -> list[str]:
        """Return Markdown, with a bar for each ratio."""
        ratios = [self.ratios(row) for row in self.rows]
        longest = max(ratio for ratio, _ in ratios)
        lines = [
            f"**{self.title}**", "",
            f"| | {self.unit}/s | per CPU second | x {self.base} | by CPU time | of roofline "
            "| max error | peak GB | |",
            "|---|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for row, (ratio, cpu_ratio) in zip(self.rows, ratios, strict=True):
            cells = (
                row.name,
                number(row.rate),
                number(row.cpu_rate),
                f"{ratio:.2f}",
                f"{cpu_ratio:.2f}",
                "" if row.roofline_rate is None else f"{row.rate / row.roofline_rate:.0%}",
                "" if row.max_error is None else f"{row.max_error:.1e}",
                "" if row.peak_bytes is None else f"{row.peak_bytes / 1e9:.2f}",
                "#" * max(round(BAR * ratio / longest), 1),
            )
            lines.append(f"| {' | '.join(cells)} |")
        return lines

    def to_json(self) -> dict[str, Any]:
        rows = [{**row.to_json(), "ratio": self.ratios(row)[0]} for row in self.rows]
        return {"title": self.title, "unit": self.unit, "base": self.base, "rows": rows}


@dataclasses.dataclass(frozen=True)
class Series:
    """Show how something grows.

    by: what `at` counts.
    at: values on the x axis.
    series: name -> a value at each of `at`.
    """

    title: str
    by: str
    unit: str
    at: Sequence[float | str]
    series: Mapping[str, Sequence[float]]

    def lines(self) -> list[str]:
        """Return Markdown, a row for each of `at`, with a bar for the first series."""
        first = next(iter(self.series.values()))
        lines = [
            f"**{self.title}**, {self.unit}", "",
            f"| {self.by} | " + " | ".join(self.series) + " | |",
            "|---|" + "---|" * len(self.series) + "---|",
        ]  # fmt: skip
        for x, *row in zip(self.at, *self.series.values(), strict=True):
            bar = "#" * max(round(BAR * row[0] / max(first)), 1)
            lines.append(f"| {x} | " + " | ".join(map(number, row)) + f" | {bar} |")
        return lines

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def number(value: float) -> str:
    """Format with three significant digits: 1,234  12.3  0.0123"""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def write_json(file: Path, results: Mapping[str, Any]) -> None:
    """Write next to the file, then rename, so that a reader never finds half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)
