"""Batches follow from config and step alone."""

import dataclasses
import itertools

import numpy as np
import pytest

from clip_jax import InputError
from clip_jax.image import open_image, resize_square
from experiments.config import AugmentConfig
from experiments.data.augment import draw, render_scales
from experiments.data.source import Split, open_split
from experiments.data.stream import TrainingExamples, batches
from experiments.data.vocabulary import train_tokenizer


@pytest.fixture
def examples(train_config):
    split = open_split(train_config.data, "validation")
    tokenizer = train_tokenizer([c for row in split for c in row["captions"]], 100)
    return TrainingExamples(split, train_config.data, train_config.model, tokenizer), len(split)


def take(examples, data, count, **kwargs):
    stream = batches(*examples, data, seed=5, **kwargs)
    return list(itertools.islice(stream, count))


def assert_equal(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        for key in ("image", "input_ids"):
            np.testing.assert_array_equal(x[key], y[key])


@pytest.mark.parametrize("threads", [0, 2])
def test_a_batch_follows_from_the_step(examples, train_config, threads):
    data = dataclasses.replace(train_config.data, threads=threads)
    # 199 examples in batches of 16: the eleventh step is well into the first epoch's end.
    whole = take(examples, data, 20)
    assert_equal(take(examples, data, 7, first_step=13), whole[13:])
    assert whole[0]["image"].shape == (16, 24, 24, 3) and whole[0]["image"].dtype == np.uint8
    assert whole[0]["input_ids"].shape == (16, 12) and whole[0]["input_ids"].dtype == np.int32
    assert all((batch["input_ids"] == 3).any(axis=1).all() for batch in whole)


def test_processes_share_a_batch_between_them(examples, train_config):
    whole = take(examples, train_config.data, 3)
    parts = [
        take(examples, train_config.data, 3, process_index=i, process_count=4) for i in range(4)
    ]
    for step, batch in enumerate(whole):
        for i in range(4):
            np.testing.assert_array_equal(parts[i][step]["image"], batch["image"][i::4])
            np.testing.assert_array_equal(parts[i][step]["input_ids"], batch["input_ids"][i::4])
    with pytest.raises(InputError, match="expected a multiple of the 3 processes"):
        take(examples, train_config.data, 1, process_count=3)


def test_an_epoch_shows_every_example_once(train_config):
    still = dataclasses.replace(
        train_config.data, augment=AugmentConfig(), batch_size=199, split="validation"
    )
    split = open_split(still, "validation")
    tokenizer = train_tokenizer(["цифра"], 100)
    examples = TrainingExamples(split, still, train_config.model, tokenizer)
    first, second = take((examples, len(split)), still, 2)
    config = train_config.model
    expected = sorted(
        resize_square(open_image(row["image"]), 24, config.image).tobytes() for row in split
    )
    assert sorted(image.tobytes() for image in first["image"]) == expected
    assert sorted(image.tobytes() for image in second["image"]) == expected
    assert (first["image"] != second["image"]).any()


def test_reading_from_disk_or_memory_is_the_same(examples, train_config):
    lazy = dataclasses.replace(train_config.data, in_memory=False)
    split = open_split(lazy, "validation")
    tokenizer = examples[0]._tokenizer
    from_disk = TrainingExamples(split, lazy, train_config.model, tokenizer)
    assert_equal(
        take((from_disk, len(split)), lazy, 2), take(examples, train_config.data, 2)
    )


def test_draws_keep_to_their_bounds(rng):
    picture = np.full((40, 40, 3), 200, np.uint8)
    augment = AugmentConfig(scales=(0.5, 2.0), background=7)
    rendered = [picture[:10, :10], picture]
    seen = {draw(rendered, 20, augment, rng).mean() for _ in range(30)}
    padded = (100 * 200 + 300 * 7) / 400
    assert seen == {200.0, padded}


def test_scales_are_rendered_as_evaluation_would(rng, small_config):
    from PIL import Image

    image = Image.fromarray(rng.integers(0, 256, (50, 50, 3), dtype=np.uint8))
    augment = AugmentConfig(scales=(1.0, 1.25))
    same, larger = render_scales(image, 24, small_config.image, augment)
    np.testing.assert_array_equal(same, resize_square(image, 24, small_config.image))
    assert larger.shape == (30, 30, 3)
    np.testing.assert_array_equal(draw([same], 24, AugmentConfig(), rng), same)


def test_sources_that_cannot_be_read(tmp_path, train_config):
    with pytest.raises(InputError, match="no prepared data set here"):
        Split(tmp_path, "train")
    with pytest.raises(InputError, match="has no split 'trane'; expected one of"):
        open_split(train_config.data, "trane")
    data = dataclasses.replace(train_config.data, name=str(tmp_path / "absent"))
    with pytest.raises(InputError, match="or the folder of a prepared TFDS set"):
        open_split(data, "train")
