"""Images decoded at a fraction of their size, and the command that times it."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.input_pipeline import main
from clip_jax import InputError
from clip_jax.image import open_image, resize_square
from experiments.config.data import AugmentConfig, DataConfig
from experiments.data.examples import ImageExamples
from rudolph_jax.config import VqganConfig
from rudolph_jax.image_tokenizer import image_config

PIXELS = image_config(VqganConfig())


@pytest.fixture
def photo(rng):
    """Return a smooth image of 640x480 pixels."""
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return coarse.resize((640, 480), Image.Resampling.BICUBIC)


def encoded(image, format):
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("side", "size"), [(60, (80, 60)), (61, (160, 120)), (240, (320, 240)), (500, (640, 480))]
)
def test_no_side_is_shorter_than_requested(photo, side, size):
    data = encoded(photo, "JPEG")
    image = open_image(data, draft_side=side)
    assert image.size == size
    whole, drafted = (resize_square(i, 60, PIXELS).astype(int) for i in (open_image(data), image))
    assert np.abs(whole - drafted).mean() < 4


def test_other_formats_are_decoded_whole(photo):
    data = encoded(photo, "PNG")
    np.testing.assert_array_equal(np.asarray(open_image(data, draft_side=60)), np.asarray(photo))
    for bad in (b"no image", encoded(photo, "JPEG")[:3000], data[:3000]):
        with pytest.raises(InputError, match="not a readable image"):
            open_image(bad, draft_side=60)


def test_drafts_are_upright_too(photo):
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)
    drafted = open_image(buffer.getvalue(), draft_side=60)
    assert drafted.size == (60, 80)
    whole = np.asarray(open_image(buffer.getvalue()).resize((60, 80))).astype(int)
    assert np.abs(whole - np.asarray(drafted)).mean() < 4


class Rows(list):
    """Stand for a split in memory, all of images."""

    def require_images(self) -> None:
        pass


def test_drafts_are_large_enough_for_the_largest_view(photo, monkeypatch):
    requested = []

    def recording_open_image(data, draft_side):
        requested.append(draft_side)
        return open_image(data, draft_side=draft_side)

    monkeypatch.setattr("experiments.data.examples.open_image", recording_open_image)
    split = Rows([{"image": encoded(photo, "JPEG")}])
    for scale, draft in (((0.5, 1.0), True), ((0.9, 1.5), True), ((1.0, 1.0), False)):
        config = DataConfig(in_memory=False, draft=draft, augment=AugmentConfig(scale=scale))
        drawn = ImageExamples(split, config, 60, PIXELS).sample(0, np.random.default_rng(0))
        assert drawn["image"].shape == (60, 60, 3)
    assert requested == [60, 90, None]
    plain = dataclasses.replace(config, draft=True)
    assert (ImageExamples(split, plain, 60, PIXELS).sample(0, np.random.default_rng(0))["image"]
            != drawn["image"]).any()  # fmt: skip


def test_the_command_prints_a_table(capsys):
    assert main(["--images=6", "--image-size=32", "--threads=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("6 JPEG files of 640x480 pixels, ")
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| stage", "|---|---|---|---|---|", "| prepare, one process", "| decode",
        "| decode, resize", "| decode, resize, tokenise", "| whole stream, 1 threads",
    ]  # fmt: skip
    assert all(line.count("|") == 6 for line in lines[2:])
    assert main(["--images=0"]) == 2
    assert "--images is 0; expected at least 1" in capsys.readouterr().err
