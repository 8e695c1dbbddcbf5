"""`growth.py`'s findings as lines, one small image each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

from benchmarks.result import Series
from clip_jax.atomic_file import replace_file
from experiments.evaluation.report.figures import as_png

matplotlib.use("agg")

from matplotlib.figure import Figure  # noqa: E402

COLUMNS = 3
COLOURS = ("#2166ac", "#8c510a")


def draw(found: Sequence[Series], file: Path) -> None:
    """A PNG; whole or not there."""
    rows = -(-len(found) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in panels[len(found) :]:
        axes.remove()
    for axes, growth in zip(panels, found, strict=False):
        places = range(len(growth.at))
        for (name, values), colour in zip(growth.series.items(), COLOURS, strict=False):
            axes.plot(places, values, "o-", color=colour, label=name)
        axes.set_xticks(places, map(str, growth.at))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(growth.by)
        axes.set_ylabel(growth.unit)
        axes.set_title("\n".join(_wrapped(growth.title)), fontsize=9)
        if len(growth.series) > 1:
            axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    replace_file(file, as_png(figure))


def _wrapped(title: str, width: int = 36) -> list[str]:
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
