"""What becomes of images as people have them: turned, deep, transparent, damaged."""

import base64
import csv
import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from clip_jax.errors import InputError
from clip_jax.image_file import open_image
from experiments.config.data import DataConfig
from experiments.data.examples import ImageExamples
from experiments.data.preparation import prepare
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.records import BadRecord, _check_image
from experiments.data.sources.shards import WriteConfig

ORIENTATION = 274
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.fixture
def smooth(rng):
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3), dtype=np.uint8))
    return coarse.resize((64, 48), Image.Resampling.BICUBIC)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def stored(files, tmp_path, **rules):
    """The images of a prepared folder, in order."""
    source = tmp_path / "source"
    source.mkdir()
    rows = [["image", "caption"]]
    for name, data in files.items():
        (source / name).write_bytes(data)
        rows.append([name, f"подпись {name}"])
    with (source / "list.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    prepare(SourceConfig(str(source)), tmp_path / "out", WriteConfig(**rules))
    return {row["key"]: row["image"] for row in Split(tmp_path / "out", "train")}


@pytest.mark.parametrize("max_side", [None, 32])
def test_orientation_survives(smooth, tmp_path, max_side):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    files = {
        f"a.{format.lower()}": encoded(smooth, format, exif=exif, quality=95)
        for format in ("JPEG", "PNG", "WEBP", "TIFF")
    }
    images = stored(files, tmp_path, max_side=max_side)
    size = (48, 64) if max_side is None else (24, 32)
    expected = np.asarray(smooth.rotate(-90, expand=True).resize(size)).astype(int)
    assert images.keys() == files.keys()
    for name, data in images.items():
        opened = open_image(data)
        assert opened.size == size, name
        assert np.abs(np.asarray(opened.convert("RGB")) - expected).mean() < 5, name
        if max_side is None and name != "a.tiff":
            assert data == files[name]


def test_sixteen_bits_are_scaled(tmp_path):
    deep = Image.fromarray(RAMP.astype(np.uint16) * 257)
    images = stored({"a.png": encoded(deep, "PNG"), "a.tif": encoded(deep, "TIFF")}, tmp_path)
    for data in images.values():
        opened = np.asarray(open_image(data).convert("RGB"))
        np.testing.assert_array_equal(opened, np.repeat(RAMP[..., None], 3, 2))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF"])
def test_transparency_is_kept_for_the_model_to_decide(format):
    drawing = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    drawing.paste((255, 0, 0, 255), (16, 16, 48, 48))
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    opened = open_image(_check_image(encoded(drawing, format, **options), 32)[0])
    pixels = np.asarray(opened.convert("RGBA"))
    assert opened.size == (32, 32)
    assert (pixels[:4, :, 3] == 0).all()
    red = np.broadcast_to((255, 0, 0, 255), (8, 8, 4))
    np.testing.assert_allclose(pixels[12:20, 12:20], red, atol=4)
    if format != "GIF":  # whose palette has no colour under what is transparent
        assert (pixels[:4, :, :3] == 255).all()  # seen by models that drop the alpha channel


def test_colours_do_not_bleed_out_of_transparent_pixels():
    drawing = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    drawing.paste((255, 255, 255, 255), (0, 0, 31, 64))
    pixels = np.asarray(open_image(_check_image(encoded(drawing, "PNG"), 16)[0]))
    seen = pixels[..., 3] > 16
    assert (pixels[seen][:, :3] > 250).all() and not seen.all()


def test_a_damaged_file_is_rejected_and_the_rest_are_kept(smooth, tmp_path):
    """A PNG with 2 MB of compressed text ended `prepare` with a trace that named no file."""
    png = encoded(smooth, "PNG")
    text = b"zTXt" + b"a\x00\x00" + zlib.compress(bytes(2 << 20))
    history = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    ending = png.index(b"IEND") - 4
    files = {
        "sound.png": png[:ending] + history + png[ending:],
        "cut.png": png[:-50],
        "cut.avif": encoded(smooth, "AVIF")[:-50],
        "good.avif": encoded(smooth, "AVIF"),
        "deep.tif": encoded(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
    }
    images = stored(files, tmp_path)
    assert images.keys() == {"sound.png", "good.avif"}
    assert images["sound.png"] == files["sound.png"]
    rejected = (tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf-8")
    assert rejected.count("image cannot be read") == 3
    assert "has mode F, floats of no fixed range; scale it to 8 or 16 bits" in rejected


def test_formats_that_are_not_taken_are_named():
    data = encoded(Image.new("RGB", (8, 8)), "PPM")
    with pytest.raises(BadRecord, match="not one of JPEG, PNG, WEBP, AVIF, GIF, BMP, TIFF"):
        _check_image(data, None)


def test_the_preview_shows_upright_images_with_their_transparency(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    wide = Image.new("RGBA", (320, 160), (0, 0, 0, 0))
    wide.paste((255, 0, 0, 255), (0, 0, 160, 160))  # the left half, above once it is upright
    stored({"a.png": encoded(wide, "PNG", exif=exif)}, tmp_path)
    page = (tmp_path / "out" / "preview.html").read_text("utf-8")
    shown = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", page).group(1))
    pixels = np.asarray(Image.open(io.BytesIO(shown)))
    assert pixels.shape == (160, 80, 4)
    np.testing.assert_allclose(pixels[40, 40], (255, 0, 0, 255), atol=8)
    assert pixels[130, 40, 3] < 8


def test_a_set_that_was_damaged_later_names_the_example(smooth, small_config, tmp_path):
    class Damaged(list):
        """A split in memory."""

        def require_images(self):
            pass

        def __str__(self):
            return "data/mine"

    rows = Damaged([{"image": encoded(smooth, "PNG")[:-50], "key": "a.png"}])
    with pytest.raises(InputError, match=r"data/mine: example 0 a\.png: image bytes: not a"):
        ImageExamples(rows, DataConfig(in_memory=True), 8, small_config.image)
