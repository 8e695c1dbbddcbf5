import io

import numpy as np
from PIL import Image

from benchmarks import data
from clip_jax.config import ImageConfig
from clip_jax.image import resize_square


def test_every_stage_is_timed_against_pillow(tables):
    (table,) = tables("data", "--images=4")
    names = [row["name"] for row in table["rows"]]
    assert names[0] == table["base"] == data.BASE
    assert "ours, decode, resize" in names and "ours, decode, resize of a JPEG draft" in names
    assert all(row["rate"] > 0 and row["processor"] > 0 for row in table["rows"])


def test_pillow_does_what_ours_does(rng):
    pixels = rng.integers(0, 256, (30, 44, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    found = data.pillow_decode(buffer.getvalue(), 16).astype(int)
    expected = resize_square(Image.open(buffer), 16, ImageConfig())
    assert found.shape == expected.shape == (16, 16, 3)
    # Ours crops before it resizes, so that the edges may differ.
    assert np.abs(found - expected.astype(int))[2:-2, 2:-2].max() <= 1
