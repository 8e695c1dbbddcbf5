"""Draws the figures of a report, each a function from numbers to PNG bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

LABELLED_CLASSES, NUMBERED_CLASSES = 30, 12
RIGHT, WRONG, LINE, FAINT = "#1b7837", "#b2182b", "#2166ac", "#92c5de"


def loss_curve(steps: Sequence[int], losses: Sequence[float], label: str) -> bytes:
    """The training loss by step, with its running mean over a tenth of the points."""
    smooth = max(len(losses) // 10, 1)
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color=FAINT, linewidth=0.8, label="batch")
    if smooth > 1:
        mean = np.convolve(losses, np.ones(smooth) / smooth, mode="valid")
        axes.plot(steps[smooth - 1 :], mean, color=LINE, label=f"mean of {smooth} points")
    axes.set_xlabel("step")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return as_png(figure)


def similarity_matrix(
    similarities: np.ndarray, images: Sequence[np.ndarray], captions: Sequence[str]
) -> bytes:
    """Cosines float[images, captions], images uint8[H, W, 3] on the left, captions above."""
    rows, columns = similarities.shape
    figure = Figure(figsize=(1.6 + 0.62 * columns, 1.9 + 0.56 * rows), layout="constrained")
    axes = figure.add_subplot()
    for i, image in enumerate(images):
        axes.imshow(image, extent=(-1.1, -0.1, i + 0.97, i + 0.03), interpolation="nearest")
    axes.imshow(similarities, cmap="viridis", extent=(0, columns, rows, 0))
    middle = (similarities.max() + similarities.min()) / 2
    for i, j in np.ndindex(rows, columns):
        axes.text(
            j + 0.5, i + 0.5, f"{similarities[i, j]:.2f}", ha="center", va="center", fontsize=7,
            color="black" if similarities[i, j] > middle else "white",
        )  # fmt: skip
    axes.set(xlim=(-1.15, columns), ylim=(rows, 0), yticks=[])
    axes.spines[:].set_visible(False)
    axes.xaxis.tick_top()
    axes.set_xticks(
        np.arange(columns) + 0.5,
        [textwrap.shorten(caption, 28, placeholder="…") for caption in captions],
        rotation=60, ha="left", rotation_mode="anchor", fontsize=8,
    )  # fmt: skip
    axes.tick_params(axis="x", length=0)
    return as_png(figure)


def image_grid(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    right: Sequence[bool] | None = None,
    columns: int = 8,
) -> bytes:
    """Images uint8[H, W, 3] with captions: what a model calls them, green where it is right."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.35 * columns, 1.75 * rows), layout="constrained")
    for i, image in enumerate(images):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(image, interpolation="nearest")
        axes.set_axis_off()
        title = "\n".join(textwrap.wrap(captions[i], 18, max_lines=2, placeholder="…"))
        colour = "black" if right is None else RIGHT if right[i] else WRONG
        axes.set_title(title, fontsize=7, color=colour)
    return as_png(figure)


def confusion_matrix(counts: np.ndarray, class_names: Sequence[str]) -> bytes:
    """Images int[true class, predicted class] as shares of each true class, its images' number.

    Up to LABELLED_CLASSES have their names, and up to NUMBERED_CLASSES the shares in per cent.
    """
    classes = len(class_names)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    side = 2.2 + 0.34 * classes if classes <= LABELLED_CLASSES else 7.0
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    axes = figure.add_subplot()
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(shown, ax=axes, shrink=0.8, label="share of the true class")
    right = np.trace(counts) / max(totals.sum(), 1)
    axes.set(
        xlabel="predicted", ylabel="true", title=f"{100 * right:.1f} % of {totals.sum():,} right"
    )
    if classes <= LABELLED_CLASSES:
        names = [textwrap.shorten(name, 24, placeholder="…") for name in class_names]
        axes.set_xticks(
            range(classes), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8
        )
        axes.set_yticks(range(classes), names, fontsize=8)
    if classes <= NUMBERED_CLASSES:
        for i, j in np.argwhere(counts):
            axes.text(
                j, i, f"{100 * shares[i, j]:.0f}", ha="center", va="center", fontsize=7,
                color="white" if shares[i, j] > 0.5 else "black",
            )  # fmt: skip
    return as_png(figure)


def image_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> bytes:
    """Rows of images uint8[H, W, 3] with a title before each; rows may differ in length."""
    columns = max(map(len, rows))
    figure = Figure(figsize=(1.6 + 0.8 * columns, 0.85 * len(rows)), layout="constrained")
    widths = [1.6, *[0.8] * columns]
    axes = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=widths)
    for axis in axes.ravel():
        axis.set_axis_off()
    for line, title, row in zip(axes, titles, rows, strict=True):
        text = "\n".join(textwrap.wrap(title, 20, max_lines=3, placeholder="…"))
        line[0].text(1.0, 0.5, text, ha="right", va="center", fontsize=8)
        for axis, image in zip(line[1:], row, strict=False):
            axis.imshow(image, interpolation="nearest")
    return as_png(figure)


def grouped_bars(
    titles: Sequence[str],
    measured: Mapping[str, Sequence[float]],
    published: Mapping[str, Sequence[float]],
    label: str,
) -> bytes:
    """A group of bars a title, one for each system; a black line where it was published.

    Values by system, in the order of the titles, NaN where there is none.
    """
    systems, places = list(measured), np.arange(len(titles))
    thickness = 0.8 / len(systems)
    height = 1.2 + (0.3 + 0.16 * len(systems)) * len(titles)
    figure = Figure(figsize=(7.5, height), layout="constrained")
    axes = figure.add_subplot()
    for number, (system, colour) in enumerate(zip(systems, _colours(len(systems)), strict=True)):
        at = places - 0.4 + (number + 0.5) * thickness
        axes.barh(at, measured[system], thickness * 0.9, color=colour, label=system)
        for y, value in zip(at, published.get(system, ()), strict=False):
            axes.plot([value, value], [y - thickness / 2, y + thickness / 2], color="black")
    axes.set_yticks(places, titles, fontsize=8)
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(label)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return as_png(figure)


def few_shot_curves(
    panels: Mapping[str, Mapping[str, Sequence[tuple[str, float, float]]]],
    stars: Mapping[str, Mapping[str, float]],
    columns: int = 4,
) -> bytes:
    """A panel a data set: title -> system -> (images a class, mean, deviation) in order.

    The band is one standard deviation of the draws; a star at 0 is zero-shot.
    """
    systems = list(dict.fromkeys(system for curves in panels.values() for system in curves))
    colours = dict(zip(systems, _colours(len(systems)), strict=True))
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(0.6 + 2.9 * columns, 0.7 + 2.4 * rows), layout="constrained")
    for number, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, number + 1)
        axes.set_title(title, fontsize=9)
        names = ["0", *dict.fromkeys(name for curve in curves.values() for name, *_ in curve)]
        for system, curve in curves.items():
            at = [names.index(name) for name, *_ in curve]
            mean, deviation = (np.array([point[i] for point in curve]) for i in (1, 2))
            colour = colours[system]
            label = system if number == 0 else None
            axes.plot(at, mean, "o-", color=colour, markersize=3, linewidth=1.2, label=label)
            axes.fill_between(
                at, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0
            )
            if system in stars.get(title, {}):
                axes.plot(0, stars[title][system], "*", color=colour, markersize=11)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("images a class", fontsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return as_png(figure)


def correlation(points: Mapping[str, Sequence[tuple[float, float, str]]]) -> bytes:
    """System -> (zero-shot, probe, what it is of); the line is where both are equal."""
    figure = Figure(figsize=(5.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle="--")
    for (system, found), colour in zip(points.items(), _colours(len(points)), strict=True):
        axes.plot(*zip(*((x, y) for x, y, _ in found), strict=True), "o", color=colour,
                  markersize=4, label=system)  # fmt: skip
        for x, y, name in found:
            axes.annotate(name, (x, y), xytext=(3, 3), textcoords="offset points", fontsize=6)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="zero-shot", ylabel="linear probe, all")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return as_png(figure)


def _colours(count: int) -> np.ndarray:
    return matplotlib.colormaps["turbo"](np.linspace(0.12, 0.9, count))


def as_png(figure: Figure) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    # No dates or versions: the same numbers give the same file.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
