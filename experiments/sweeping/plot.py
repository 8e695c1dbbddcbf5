"""Plots a sweep: loss by step, and the metrics of every run."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.config.run import TrainConfig
from experiments.sweeping.results import Row
from experiments.training.metrics import read_metrics

LOSS = "train/loss"


def plot(rows: Sequence[Row], folders: Sequence[Sequence[Path]], metrics: Sequence[str]) -> bytes:
    """Returns a PNG. folders: of each row's runs that did not diverge, in order of its results.

    Left the training loss, the mean over the seeds with a band from the least to the greatest, on
    axes of their own where losses are not comparable (`loss_groups`); beside it each metric, a dot
    a seed and a line at the mean. A variant keeps its colour.
    """
    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(rows)))
    groups = loss_groups([row.variant.config for row in rows])
    height = max(2.6, 0.24 * len(rows) + 0.9)
    figure = Figure(
        figsize=(1.6 + 2.9 * (len(groups) + len(metrics)), height), layout="constrained"
    )
    axes = figure.subplots(1, len(groups) + len(metrics), squeeze=False)[0]
    others = axes[len(groups) :]
    for number, (first, group) in enumerate(zip(axes, groups, strict=False)):
        for index in group:
            _curve(first, folders[index], colours[index])
        first.set_xlabel("step")
        first.set_ylabel(LOSS if len(groups) == 1 else f"{LOSS}, group {number + 1}")
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


def loss_groups(configs: Sequence[TrainConfig]) -> list[list[int]]:
    """Returns the indices of configs whose training losses mean the same, group by group.

    Losses are comparable with one objective, its weights and negatives, one vocabulary, one form of
    the contrastive loss (softmax or sigmoid) and, as the softmax is over the batch, one batch size.
    """
    groups: dict[str, list[int]] = {}
    for index, config in enumerate(configs):
        settings = dataclasses.asdict(config.settings)
        for name in ("form", "tile", "patch_dropout"):  # equal values, or another model
            settings.pop(name, None)
        model, batch = config.model, config.data.batch_size
        key = {
            "clip": lambda model=model, batch=batch: (batch, model.logit_bias),
            "rudolph": lambda model=model: (model.text_vocab_size, model.image_vocab_size),
            "vqgan": lambda model=model: (model.codebook_size,),
        }[config.objective]()
        groups.setdefault(repr((config.objective, settings, key)), []).append(index)
    return list(groups.values())


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
