"""Tables of a sweep: Markdown for people, CSV with a line a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from experiments.sweeping.results import Row, paired_difference, summary
from experiments.sweeping.variants import describe


def to_markdown(
    rows: Sequence[Row], metrics: Sequence[str], seeds: Sequence[int], base: Row
) -> str:
    """Returns for each metric the mean with its deviation, each seed, the difference to base.

    Speeds are left to table.json and table.csv: runs of a sweep may share a machine.
    """
    named = any(row.variant.name != describe(row.variant.overrides) for row in rows)
    titles = ["variant", *(["overrides"] if named else [])]
    for metric in metrics:
        titles += [metric, "each seed", f"minus {base.variant.name}"]
    lines = [_line(titles), "|---" * len(titles) + "|"]
    failed = []
    for row in rows:
        cells = [row.variant.name]
        if named:
            listed = describe(row.variant.overrides).replace("|", "\\|")
            cells.append(f"`{listed}`" if listed else "")
        for metric in metrics:
            cells += [
                mean_and_deviation(**summary(row.values(metric))),
                ", ".join(f"{value:.4f}" for value in row.values(metric)),
                "" if row is base else _difference(**paired_difference(row, base, metric)),
            ]
        lines.append(_line(cells))
        errors = {seed: result.error for seed, result in row.results.items() if result.error}
        failed += [f"- {row.variant.name}, seed {seed}: {why}" for seed, why in errors.items()]
    done = sum(len(row.results) for row in rows)
    notes = [
        f"Mean ± standard deviation over {len(seeds)} seeds; {done} of {len(rows) * len(seeds)} "
        f"runs. Differences to {base.variant.name} are means over equal seeds with their 95 % "
        "interval (Student's t); one that holds 0 shows nothing."
    ]
    if failed:
        notes += ["", f"Diverged and left out ({len(failed)}):", "", *failed]
    return "\n".join([*lines, "", *notes]) + "\n"


def to_csv(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """Returns a line for each run that is over; empty cells where a run diverged."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["variant", "overrides", "seed", *metrics, "steps_per_second", "wall_seconds", "error"]
    )
    for row in rows:
        for seed, result in row.results.items():
            values = [None if result.error else result.metrics.get(name) for name in metrics]
            writer.writerow([
                row.variant.name, describe(row.variant.overrides), seed, *values,
                result.steps_per_second, result.wall_seconds, result.error,
            ])  # fmt: skip
    return text.getvalue()


def mean_and_deviation(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _difference(mean: float | None, low: float | None, high: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:+.4f}" + ("" if low is None else f" [{low:+.4f}, {high:+.4f}]")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
