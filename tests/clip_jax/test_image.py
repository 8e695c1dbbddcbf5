import dataclasses
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clip_jax import PRESETS, RUCLIP_SMALL, ClipConfig, ImageConfig, InputError
from clip_jax.config import WHITE
from clip_jax.image import (
    center_crop_square,
    normalize_pixels,
    open_image,
    preprocess,
    resize_square,
)

OPENAI = ImageConfig(resample="bicubic", crop="resize_then_crop")


def ramp(width, height):
    """Makes an image whose columns differ, so that a crop shows its offset."""
    row = np.arange(width, dtype=np.uint8)
    return Image.fromarray(np.repeat(np.repeat(row[None, :, None], height, 0), 3, 2))


def test_ruclip_center_crops_before_resizing():
    pixels = resize_square(ramp(15, 8), 8, ImageConfig())
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(3, 11))  # (15 - 8) // 2 = 3


def test_openai_resizes_the_shorter_side_first():
    picture = ramp(40, 20)
    pixels = resize_square(picture, 10, OPENAI)
    expected = np.asarray(picture.resize((20, 10), Image.Resampling.BICUBIC))[:, 5:15]
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"]
)
@pytest.mark.parametrize("config", [ImageConfig(), OPENAI])
def test_every_mode_gives_its_colour(mode, config):
    grey = mode in ("1", "L", "LA")
    colour = (255, 255, 255) if grey else (200, 100, 40)
    picture = Image.new("RGB", (20, 31), colour).convert("L" if grey else "RGB")
    if mode in ("P", "PA"):
        picture = picture.quantize(2)
    elif mode == "RGBX":
        picture = Image.merge("RGBX", (*picture.split(), Image.new("L", picture.size)))
    if picture.mode != mode:
        picture = picture.convert(mode)
    pixels = resize_square(open_image(picture), 12, config)
    assert pixels.shape == (12, 12, 3)
    np.testing.assert_allclose(pixels, np.broadcast_to(colour, pixels.shape), atol=4)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 2), (9000, 1), (2, 5000)])
def test_extreme_shapes(size):
    for config in (ImageConfig(), OPENAI):
        assert resize_square(Image.new("RGB", size, "red"), 9, config).tolist() == [
            [[255, 0, 0]] * 9
        ] * 9


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
@pytest.mark.parametrize("size", [(4000, 1), (1, 3000), (2500, 3), (3, 2001), (3000, 11)])
def test_thin_images_are_cropped_before_the_resize(size, mode, rng, monkeypatch):
    """20000x1 took 23 s and 3.9 GB; the window alone gives the same pixels."""
    noise = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(noise).convert(mode)
    for config in (OPENAI, dataclasses.replace(OPENAI, resample="bilinear")):
        windowed = resize_square(picture, 12, config).astype(int)
        with monkeypatch.context() as patch:
            patch.setattr("clip_jax.image.MAX_RESIZED_ASPECT", 10**9)
            whole = resize_square(picture, 12, config).astype(int)
        # Rounding of a box that Pillow keeps in float32.
        assert np.abs(windowed - whole).max() <= 1
        assert (windowed != whole).mean() < 0.01


def test_resizing_a_thin_image_makes_no_large_one(monkeypatch):
    made, resize = [], Image.Image.resize

    def noted(self, size, *args, **kwargs):
        made.append(size)
        return resize(self, size, *args, **kwargs)

    monkeypatch.setattr(Image.Image, "resize", noted)
    resize_square(Image.new("RGB", (20000, 1)), 32, OPENAI)
    resize_square(Image.new("RGB", (1, 20000)), 32, OPENAI)
    assert made == [(32, 32), (32, 32)]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90))
def test_the_square_is_the_largest_and_in_the_middle(width, height):
    places = np.zeros((height, width, 3), np.uint8)
    places[..., 0], places[..., 1] = np.arange(width), np.arange(height)[:, None]
    square = np.asarray(center_crop_square(Image.fromarray(places), None)).astype(int)
    short = min(width, height)
    assert square.shape == (short, short, 3)
    for axis, length in ((0, width), (1, height)):
        before, after = square[0, 0, axis], length - 1 - square[-1, -1, axis]
        assert after - before in (0, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_images_of_common_shapes_are_resized_whole(width, height, size, seed):
    """Then cropped: pixels are Pillow's of the whole image, to the bit."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image, short = Image.fromarray(noise), min(width, height)
    whole = tuple(size * side // short for side in image.size)
    resized = np.asarray(image.resize(whole, Image.Resampling.BICUBIC))
    left, top = (round((side - size) / 2) for side in whole)
    expected = resized[top : top + size, left : left + size]
    np.testing.assert_array_equal(resize_square(image, size, OPENAI), expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("base", [ImageConfig(), OPENAI])
@pytest.mark.parametrize("background", [None, (1, 2, 3)])
def test_a_palette_with_transparency_gives_no_warning(base, background):
    """Pillow warns where such an image loses its alpha, which `background=None` asks for."""
    palette = Image.new("RGB", (8, 8), (200, 100, 50)).quantize(4)
    buffer = io.BytesIO()
    palette.save(buffer, "PNG", transparency=bytes([255, 128, 0, 0]))
    opened = open_image(buffer.getvalue())
    config = dataclasses.replace(base, background=background)
    assert (resize_square(opened, 8, config) == (200, 100, 50)).all()
    assert "transparency" in opened.info  # the caller's image stays as it is


@pytest.mark.parametrize("base", [ImageConfig(), OPENAI])
def test_transparency_shows_the_background(base):
    """White ink on transparent white was a white square; published models still see that."""
    drawing = Image.new("RGBA", (16, 16), (255, 255, 255, 0))
    drawing.paste((255, 255, 255, 255), (4, 4, 12, 12))

    def seen(background, image=drawing):
        config = dataclasses.replace(base, background=background)
        return resize_square(image, 16, config)

    assert (seen(None) == 255).all()
    black = seen((0, 0, 0))
    assert (black[6:10, 6:10] == 255).all() and (black[0] == 0).all()
    assert (seen((10, 200, 30))[0] == (10, 200, 30)).all()
    half = Image.new("RGBA", (8, 8), (200, 0, 0, 128))
    np.testing.assert_allclose(seen((0, 0, 0), half)[0, 0], (100, 0, 0), atol=1)
    # By a palette, by a colour that stands for transparent (PNG's tRNS), in grey.
    by_palette = drawing.convert("RGBA").quantize(4)
    assert (seen((0, 0, 0), by_palette)[0] == 0).all()
    keyed = Image.new("RGB", (8, 8), (1, 2, 3))
    keyed.info["transparency"] = (1, 2, 3)
    assert (seen((9, 9, 9), keyed) == 9).all()
    grey = Image.new("LA", (16, 16), (255, 0))
    assert (seen((7, 7, 7), grey) == 7).all() and (seen(None, grey) == 255).all()


def test_backgrounds_of_published_and_new_models():
    for name, preset in PRESETS.items():
        assert preset.image.background == (WHITE if name == "tiny" else None)
    assert RUCLIP_SMALL.image.background is None
    assert ImageConfig().background == WHITE
    saved = PRESETS["tiny"].to_dict()
    assert ClipConfig.from_dict(json.loads(json.dumps(saved))) == PRESETS["tiny"]
    del saved["image"]["background"]  # as earlier commits wrote it
    assert ClipConfig.from_dict(saved).image.background is None
    for wrong in ((1, 2), (0, 0, 256), "white", (0.5, 0.5, 0.5), [1, 2, 3]):
        with pytest.raises(InputError, match="image.background is"):
            ImageConfig(background=wrong)


def test_normalising(rng):
    pixels = rng.integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    config = ImageConfig()
    values = normalize_pixels(pixels, config)
    assert values.dtype == np.float32
    expected = (pixels / 255 - np.array(config.mean)) / np.array(config.std)
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_sources_agree(tmp_path):
    picture = ramp(10, 10)
    picture.save(tmp_path / "a.png")
    encoded = (tmp_path / "a.png").read_bytes()
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), encoded, np.asarray(picture)):
        np.testing.assert_array_equal(np.asarray(open_image(source)), np.asarray(picture))


def test_damaged_images_raise_input_error(tmp_path):
    buffer = io.BytesIO()
    ramp(64, 64).save(buffer, "PNG")
    for name, content in {
        "cut.png": buffer.getvalue()[:-80],
        "text.jpg": "это не картинка".encode(),
        "empty.png": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name) as caught:
            preprocess([tmp_path / name], 8, ImageConfig())
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no such image"):
        open_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match=r"float64\[4, 4\]"):
        open_image(np.zeros((4, 4)))


def test_no_images_give_no_pixels():
    assert preprocess([], 8, ImageConfig()).shape == (0, 8, 8, 3)


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(48, 48), (96, 64), (50, 97), (301, 30), (24, 20), (13, 7)])
def test_pixels_are_those_of_transformers_clip_processor(mode, size, rng):
    """Sizes whose centre lies between no two pixels: there transformers' Pillow processor rounds
    down, and OpenAI's torchvision, like ours, to even."""
    import transformers

    shape = (size[1], size[0], 3)[: 3 if mode == "RGB" else 2]
    picture = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    theirs = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 20}, crop_size={"height": 20, "width": 20}
    )
    expected = theirs(picture, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(preprocess([picture], 20, OPENAI), expected, atol=2e-6)
