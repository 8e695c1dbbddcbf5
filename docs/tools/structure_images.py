"""How a sequence is laid out and masked, drawn by the model's own code.

    python -m docs.tools.structure_images docs/pictures

Everything drawn comes from `rudolph_jax.layout` and `rudolph_jax.masks`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import ListedColormap

from clip_jax.atomic_file import replace_file
from clip_jax.cli import Parser
from experiments.cli.exit_status import exit_status
from experiments.evaluation.report.figures import as_png
from rudolph_jax import PRESETS, RudolphConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import MASK_TYPES, layer_mask_types, mask

matplotlib.use("agg")

from matplotlib.axes import Axes  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

# Small enough to count squares: four text tokens a side, an image of 4x4 codes.
EXAMPLE = RudolphConfig(
    left_text_length=4, image_tokens_per_side=4, right_text_length=4, text_vocab_size=16,
    image_vocab_size=16, width=8, layers=4, heads=1, kernel_size=3, last_kernel_size=5,
)  # fmt: skip
SEEN_AS = ListedColormap(["#f7f7f7", "#8c510a", "#2166ac", "#1b7837"])
COLOURS = dict(zip(("left", "image", "right"), SEEN_AS.colors[1:], strict=True))
SHOWN = ("350M", "1.3B", "2.7B")


def mask_picture(config: RudolphConfig) -> Figure:
    """Each kind of mask; a square has its column's segment's colour where it may be looked at."""
    figure = Figure(figsize=(3.1 * len(MASK_TYPES), 3.5), layout="constrained")
    for axes, kind in zip(figure.subplots(1, len(MASK_TYPES)), MASK_TYPES, strict=True):
        axes.imshow(mask_cells(config, kind), cmap=SEEN_AS, vmin=0, vmax=3)
        axes.set_title(kind)
        _segment_ticks(axes, Layout(config))
    figure.supxlabel("is looked at", fontsize=9)
    figure.supylabel("asks", fontsize=9)
    return figure


def mask_cells(config: RudolphConfig, kind: str) -> np.ndarray:
    """int[T, T]: 0 for what may not be looked at, else 1, 2, 3: left text, image, right text."""
    segment = np.zeros(Layout(config).sequence_length, int)
    for number, name in enumerate(COLOURS, 1):
        segment[getattr(Layout(config), name)] = number
    return mask(config, kind) * segment


def sight_picture(config: RudolphConfig) -> Figure:
    """What one code of the image sees of the image, under each kind of mask."""
    d = config.image_tokens_per_side
    figure = Figure(figsize=(2.2 * len(MASK_TYPES), 2.5), layout="constrained")
    asking = d * (d // 2) + d // 2
    for axes, kind in zip(figure.subplots(1, len(MASK_TYPES)), MASK_TYPES, strict=True):
        axes.imshow(sight_cells(config, kind, asking), cmap=SEEN_AS, vmin=0, vmax=3)
        axes.add_patch(
            matplotlib.patches.Rectangle(
                (asking % d - 0.5, asking // d - 0.5), 1, 1, fill=False, color="black", linewidth=2
            )
        )
        axes.set(title=kind, xticks=[], yticks=[])
    return figure


def sight_cells(config: RudolphConfig, kind: str, asking: int) -> np.ndarray:
    """int[d, d]: 2 for the codes of the image that code number `asking` may look at, else 0."""
    layout, d = Layout(config), config.image_tokens_per_side
    return 2 * mask(config, kind)[layout.image.start + asking, layout.image].reshape(d, d)


def layer_picture(names: Sequence[str]) -> Figure:
    """Which layer of the published models has which mask."""
    figure = Figure(figsize=(9, 0.6 + 0.5 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    letters = dict(zip(MASK_TYPES, "RCKLA", strict=True))
    for row, name in enumerate(names):
        for layer, kind in enumerate(layer_mask_types(PRESETS[name])):
            axes.text(layer, row, letters[kind], ha="center", va="center", fontsize=9)
    layers = max(PRESETS[name].layers for name in names)
    axes.set(xlim=(-0.7, layers - 0.3), ylim=(len(names) - 0.5, -0.5))
    axes.set_xticks(range(0, layers, 4))
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("layer: R row, C column, K conv, L last conv")
    axes.spines[:].set_visible(False)
    return figure


def layout_picture(names: Sequence[str]) -> Figure:
    """Segments of the sequence, and ranges of the vocabulary, to scale."""
    figure = Figure(figsize=(9, 0.9 * len(names) + 1.2), layout="constrained")
    for axes, title, parts_of in zip(
        figure.subplots(1, 2), ("sequence", "logits"), (segments, vocabulary), strict=True
    ):
        longest = max(parts_of(PRESETS[name])[-1][1].stop for name in names)
        for row, name in enumerate(names):
            for part, where, colour in parts_of(PRESETS[name]):
                length = where.stop - where.start
                axes.barh(row, length, left=where.start, color=colour, edgecolor="white")
                if length >= 0.05 * longest:
                    axes.text(
                        where.start + length / 2, row, f"{part}\n{length:,}", color="white",
                        ha="center", va="center", fontsize=7,
                    )  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_title(title)
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


Parts = list[tuple[str, slice, str]]


def segments(config: RudolphConfig) -> Parts:
    """(name, positions, colour) of each segment."""
    layout = Layout(config)
    return [(name, getattr(layout, name), colour) for name, colour in COLOURS.items()]


def vocabulary(config: RudolphConfig) -> Parts:
    """(name, logits, colour) of each range of ids."""
    layout, pieces = Layout(config), config.text_vocab_size
    codes = layout.code_logits
    return [
        ("pieces", slice(0, pieces), COLOURS["left"]),
        ("special", slice(pieces, layout.text_pad_offset), "#bf812d"),
        ("left pads", slice(layout.text_pad_offset, layout.num_text_ids), "#dfc27d"),
        ("codes", codes, COLOURS["image"]),
        ("special", slice(codes.stop, layout.vocab_size), "#92c5de"),
    ]


def _segment_ticks(axes: Axes, layout: Layout) -> None:
    edges = [layout.image.start - 0.5, layout.right.start - 0.5]
    for edge in edges:
        axes.axhline(edge, color="black", linewidth=0.6)
        axes.axvline(edge, color="black", linewidth=0.6)
    middles = [
        (where.start + where.stop - 1) / 2 for where in (layout.left, layout.image, layout.right)
    ]
    axes.set_xticks(middles, ["left", "image", "right"], fontsize=8)
    axes.set_yticks(middles, ["left", "image", "right"], fontsize=8, rotation=90, va="center")
    axes.tick_params(length=0)


PICTURES = {
    "masks": lambda: mask_picture(EXAMPLE),
    "sight": lambda: sight_picture(PRESETS["350M"]),
    "layers": lambda: layer_picture(SHOWN),
    "layout": lambda: layout_picture(SHOWN),
}


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _draw(argv), argv)


def _draw(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m docs.tools.structure_images", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("out", type=Path, help="folder for the PNG files")
    out = parser.parse_args(argv).out
    for name, draw in PICTURES.items():
        replace_file(out / f"{name}.png", as_png(draw()))


if __name__ == "__main__":
    sys.exit(main())
