"""The drawn masks and layouts are the model's own."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from docs.tools import structure_images as pictures
from rudolph_jax import PRESETS
from rudolph_jax.layout import Layout
from rudolph_jax.masks import MASK_TYPES, layer_mask_types, mask

DOCS = Path(__file__).parents[2] / "docs"


OTHER = dataclasses.replace(
    pictures.EXAMPLE, image_tokens_per_side=3, right_text_length=2, conv_edges="wrap"
)


@pytest.mark.parametrize("config", [pictures.EXAMPLE, OTHER])
def test_drawn_masks_are_the_masks(config):
    layout = Layout(config)
    expected_segment = np.array([1] * 4 + [2] * layout.image_length + [3] * (
        layout.sequence_length - layout.image.stop))  # fmt: skip
    for axes, kind in zip(pictures.mask_picture(config).axes, MASK_TYPES, strict=True):
        (drawn,) = (np.asarray(image.get_array()) for image in axes.get_images())
        np.testing.assert_array_equal(drawn > 0, mask(config, kind))
        asks, looked_at = np.nonzero(drawn)
        np.testing.assert_array_equal(drawn[asks, looked_at], expected_segment[looked_at])
        assert axes.get_title() == kind


def test_drawn_sight_is_a_row_of_the_mask():
    config = PRESETS["350M"]
    asking = 8 * 16 + 8
    for axes, kind in zip(pictures.sight_picture(config).axes, MASK_TYPES, strict=True):
        (drawn,) = (np.asarray(image.get_array()) for image in axes.get_images())
        row = mask(config, kind)[64 + asking, 64 : 64 + 256]
        np.testing.assert_array_equal(drawn.ravel() > 0, row)
        (frame,) = axes.patches
        assert (frame.get_x() + 0.5, frame.get_y() + 0.5) == (8, 8)


def test_drawn_layers_and_lengths():
    figure = pictures.layer_picture(["350M"])
    letters = [text.get_text() for text in figure.axes[0].texts]
    initial = {"row": "R", "column": "C", "conv": "K", "last_conv": "L"}
    assert letters == [initial[kind] for kind in layer_mask_types(PRESETS["350M"])]
    sequence, logits = pictures.layout_picture(["350M"]).axes
    bars = [(bar.get_x(), bar.get_width()) for bar in sequence.patches]
    assert bars == [(0, 64), (64, 256), (320, 64)]
    bars = [(bar.get_x(), bar.get_width()) for bar in logits.patches]
    assert bars == [(0, 16384), (16384, 384), (16768, 64), (16832, 8192), (25024, 384)]
    assert sum(width for _, width in bars) == Layout(PRESETS["350M"]).vocab_size


def test_every_picture_is_in_the_docs(tmp_path):
    assert pictures.main([str(tmp_path)]) == 0
    drawn = {file.name for file in tmp_path.iterdir()}
    assert drawn == {f"{name}.png" for name in pictures.PICTURES}
    assert drawn <= {file.name for file in (DOCS / "pictures").iterdir()}
    page = (DOCS / "concepts.md").read_text(encoding="utf-8")
    assert all(f"pictures/{name}" in page for name in drawn)
