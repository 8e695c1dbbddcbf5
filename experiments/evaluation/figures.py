"""The pictures of a report, each a function from numbers to PNG bytes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import matplotlib
import numpy as np

matplotlib.use("agg")

from matplotlib.figure import Figure  # noqa: E402

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
    return _png(figure)


def similarity_matrix(
    similarities: np.ndarray, pictures: Sequence[np.ndarray], captions: Sequence[str]
) -> bytes:
    """Cosines float[pictures, captions], pictures uint8[H, W, 3] on the left, captions above."""
    rows, columns = similarities.shape
    figure = Figure(figsize=(1.6 + 0.62 * columns, 1.9 + 0.56 * rows), layout="constrained")
    axes = figure.add_subplot()
    for i, picture in enumerate(pictures):
        axes.imshow(picture, extent=(-1.1, -0.1, i + 0.97, i + 0.03), interpolation="nearest")
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
    return _png(figure)


def picture_grid(
    pictures: Sequence[np.ndarray],
    captions: Sequence[str],
    right: Sequence[bool],
    columns: int = 8,
) -> bytes:
    """Pictures uint8[H, W, 3] with what the model calls them, green where it is right."""
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.35 * columns, 1.75 * rows), layout="constrained")
    for i, picture in enumerate(pictures):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(picture, interpolation="nearest")
        axes.set_axis_off()
        title = "\n".join(textwrap.wrap(captions[i], 18, max_lines=2, placeholder="…"))
        axes.set_title(title, fontsize=7, color=RIGHT if right[i] else WRONG)
    return _png(figure)


def picture_rows(rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str]) -> bytes:
    """Rows of pictures uint8[H, W, 3] with a title before each; rows may differ in length."""
    columns = max(map(len, rows))
    figure = Figure(figsize=(1.6 + 0.8 * columns, 0.85 * len(rows)), layout="constrained")
    widths = [1.6, *[0.8] * columns]
    axes = figure.subplots(len(rows), columns + 1, squeeze=False, width_ratios=widths)
    for axis in axes.ravel():
        axis.set_axis_off()
    for line, title, row in zip(axes, titles, rows, strict=True):
        text = "\n".join(textwrap.wrap(title, 20, max_lines=3, placeholder="…"))
        line[0].text(1.0, 0.5, text, ha="right", va="center", fontsize=8)
        for axis, picture in zip(line[1:], row, strict=False):
            axis.imshow(picture, interpolation="nearest")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # No dates or versions: the same numbers give the same file.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()
