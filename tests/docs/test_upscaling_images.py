"""The small network of docs/upscaling.md: what it learns from, and the image."""

import io

import numpy as np
from PIL import Image

from docs.tools import upscaling_images as tool


def test_patches_are_reduced_by_the_scale_and_show_something(monkeypatch, capsys):
    monkeypatch.setattr(tool, "DRAWINGS", 2)
    large, small = tool.training_patches(["🦔"], np.random.default_rng(0))
    assert large.shape[1:] == (64, 64, 3) and small.shape == (len(large), 16, 16, 3)
    assert 0 < len(large) <= 20 and all(patch.std() >= tool.FLAT for patch in large)
    np.testing.assert_array_equal(small[0], tool.reduced(Image.fromarray(large[0])))


def test_an_emoji_fills_its_square_at_any_side():
    for side in (72, 256):
        image = np.asarray(tool.drawing("🦔", side))
        assert image.shape == (side, side, 3)
        assert (image != 255).any(axis=(0, 2)).mean() > 0.9


def test_a_sheet_has_a_panel_for_each_image():
    red = Image.new("RGB", (8, 8), "red")
    sheet = Image.open(io.BytesIO(tool.sheet([[("a", red), ("b", red)]]))).convert("RGB")
    assert sheet.size == (2 * tool.PANEL + tool.MARGIN, tool.PANEL + tool.MARGIN)
    assert sheet.getpixel((tool.PANEL + tool.MARGIN + 5, tool.MARGIN + 5)) == (255, 0, 0)
    assert tool.peak_ratio(red, Image.new("RGB", (8, 8), "black")) < 10
