"""Line plots of the results of `scaling.py`."""

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


def plot(all_series: Sequence[Series], file: Path) -> None:
    """Write a PNG with a panel for each of them, atomically."""
    rows = -(-len(all_series) // COLUMNS)
    figure = Figure(figsize=(3.4 * COLUMNS, 3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in panels[len(all_series) :]:
        axes.remove()
    for axes, panel in zip(panels, all_series, strict=False):
        positions = range(len(panel.at))
        for (name, values), colour in zip(panel.series.items(), COLOURS, strict=False):
            axes.plot(positions, values, "o-", color=colour, label=name)
        axes.set_xticks(positions, map(str, panel.at))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(panel.by)
        axes.set_ylabel(panel.unit)
        axes.set_title("\n".join(_wrapped(panel.title)), fontsize=9)
        if len(panel.series) > 1:
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
