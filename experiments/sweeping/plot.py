"""A sweep as one picture: loss by step, and the metrics of every run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("agg")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from experiments.sweeping.results import Row  # noqa: E402
from experiments.training.metrics import read_metrics  # noqa: E402

LOSS = "train/loss"


def plot(rows: Sequence[Row], folders: Sequence[Sequence[Path]], metrics: Sequence[str]) -> bytes:
    """PNG. folders: of each row's runs that did not diverge, in the order of its results.

    Left the training loss, the mean over the seeds with a band from the least to the greatest;
    beside it each metric, a dot a seed and a line at the mean. A variant keeps its colour.
    """
    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(rows)))
    height = max(2.6, 0.24 * len(rows) + 0.9)
    figure = Figure(figsize=(4.5 + 2.9 * len(metrics), height), layout="constrained")
    first, *others = figure.subplots(
        1, 1 + len(metrics), squeeze=False, width_ratios=[1.2] + [1] * len(metrics)
    )[0]
    for colour, of_row in zip(colours, folders, strict=True):
        _curve(first, of_row, colour)
    first.set_xlabel("step")
    first.set_ylabel(LOSS)
    first.grid(alpha=0.3)
    for number, (axes, metric) in enumerate(zip(others, metrics, strict=True)):
        for place, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            values = row.values(metric)
            axes.plot(values, [place] * len(values), "o", color=colour, markersize=4)
            if values:
                mean = float(np.mean(values))
                axes.plot([mean, mean], [place - 0.35, place + 0.35], color=colour, linewidth=2)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(
            range(len(rows)), [row.variant.name if number == 0 else "" for row in rows], fontsize=7
        )
        axes.set_xlabel(metric, fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(alpha=0.3)
        for label, colour in zip(axes.get_yticklabels(), colours, strict=True):
            label.set_color(0.75 * colour[:3])  # darker: the middle of the map is pale
    buffer = io.BytesIO()
    # No dates or versions: the same numbers give the same file.
    figure.savefig(buffer, format="png", dpi=90, metadata={"Software": None})
    return buffer.getvalue()


def _curve(axes: Axes, folders: Sequence[Path], colour: np.ndarray) -> None:
    curves = [
        {row["step"]: row[LOSS] for row in read_metrics(folder) if LOSS in row}
        for folder in folders
    ]
    steps = sorted(set.intersection(*map(set, curves))) if curves else []
    if steps:
        losses = np.array([[curve[step] for step in steps] for curve in curves])
        axes.plot(steps, losses.mean(axis=0), color=colour, linewidth=1)
        axes.fill_between(
            steps, losses.min(axis=0), losses.max(axis=0), color=colour, alpha=0.2, linewidth=0
        )
