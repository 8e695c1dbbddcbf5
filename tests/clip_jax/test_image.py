import io

import numpy as np
import pytest
from PIL import Image

from clip_jax import ImageConfig, InputError
from clip_jax.image import (
    normalize_pixels,
    open_image,
    preprocess,
    resize_square,
)

OPENAI = ImageConfig(resample="bicubic", crop="resize_then_crop")


def ramp(width, height):
    """Each column has its own value: a crop shows where it was cut."""
    row = np.arange(width, dtype=np.uint8)
    return Image.fromarray(np.repeat(np.repeat(row[None, :, None], height, 0), 3, 2))


def test_ruclip_cuts_the_centre_square_before_resizing():
    pixels = resize_square(ramp(15, 8), 8, ImageConfig())
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(3, 11))  # (15 - 8) // 2 = 3


def test_openai_resizes_the_shorter_side_first():
    picture = ramp(40, 20)
    pixels = resize_square(picture, 10, OPENAI)
    expected = np.asarray(picture.resize((20, 10), Image.Resampling.BICUBIC))[:, 5:15]
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("config", [ImageConfig(), OPENAI])
def test_every_mode_gives_rgb(mode, config):
    picture = Image.new(mode, (20, 31))
    assert preprocess([picture], 12, config).shape == (1, 12, 12, 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (300, 2)])
def test_extreme_shapes(size):
    for config in (ImageConfig(), OPENAI):
        assert resize_square(Image.new("RGB", size, "red"), 9, config).tolist() == [
            [[255, 0, 0]] * 9
        ] * 9


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


def test_broken_pictures_are_one_line_errors(tmp_path):
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


def test_no_pictures_give_no_pixels():
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
