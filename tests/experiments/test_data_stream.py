"""Batches follow from config and step alone."""

import dataclasses
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from clip_jax import InputError
from clip_jax.image import open_image, resize_square
from experiments.config.data import AugmentConfig
from experiments.data.augment import augment_rendering, render
from experiments.data.examples import ImageTextExamples
from experiments.data.source import Split, build_builtin_set, open_split
from experiments.data.stream import batches, split_groups
from experiments.data.vocabulary import train_tokenizer


@pytest.fixture
def examples(train_config):
    split = open_split(train_config.data, "validation")
    tokenizer = train_tokenizer([c for row in split for c in row["captions"]], 100)
    return ImageTextExamples(split, train_config.data, train_config.model, tokenizer)


def take(examples, data, count, **kwargs):
    stream = batches(examples, data, seed=5, **kwargs)
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
    examples = ImageTextExamples(split, still, train_config.model, tokenizer)
    first, second = take(examples, still, 2)
    config = train_config.model
    expected = sorted(
        resize_square(open_image(row["image"]), 24, config.image).tobytes() for row in split
    )
    assert sorted(image.tobytes() for image in first["image"]) == expected
    assert sorted(image.tobytes() for image in second["image"]) == expected
    assert (first["image"] != second["image"]).any()


def test_reading_from_disk_or_memory_is_the_same_without_renderings(train_config):
    plain = dataclasses.replace(train_config.data, augment=AugmentConfig(shift=1, recolour=0.5))
    split = open_split(plain, "validation")
    tokenizer = train_tokenizer(["цифра"], 100)
    taken = []
    for in_memory in (True, False):
        data = dataclasses.replace(plain, in_memory=in_memory)
        examples = ImageTextExamples(split, data, train_config.model, tokenizer)
        taken.append(take(examples, data, 2))
    assert_equal(*taken)


def test_groups_have_batches_of_their_own(train_config):
    data = dataclasses.replace(train_config.data, group_by="label", augment=AugmentConfig())
    split = open_split(data, "validation")
    captions = [c for row in split for c in row["captions"]]
    tokenizer = train_tokenizer(captions, 100)
    examples = ImageTextExamples(split, data, train_config.model, tokenizer)
    sizes = np.array([len(group) for group in split_groups(examples.split, "label")])
    assert sizes.sum() == len(split) and len(sizes) == 10
    label_of = {tuple(ids): row["label"]
                for row in split
                for ids in tokenizer.encode_batch(row["captions"], 12)}  # fmt: skip
    taken = take(examples, data, 60)
    labels = [{label_of[tuple(ids)] for ids in batch["input_ids"]} for batch in taken]
    assert all(len(found) == 1 for found in labels)
    counts = np.bincount([found.pop() for found in labels], minlength=10)
    np.testing.assert_allclose(counts / 60, sizes / sizes.sum(), atol=0.03)
    assert_equal(take(examples, data, 5, first_step=55), taken[55:])


def test_plain_rendering_is_what_evaluation_sees(rng, small_config):
    image = Image.fromarray(rng.integers(0, 256, (50, 40, 3), dtype=np.uint8))
    config, plain = small_config.image, AugmentConfig()
    expected = resize_square(image, 24, config)
    rendered = render(image, 24, config, plain, rng)
    np.testing.assert_array_equal(rendered, expected)
    np.testing.assert_array_equal(augment_rendering(rendered, 24, plain, rng), expected)


def test_shifted_cuts_stay_on_the_canvas(rng, small_config):
    augment = AugmentConfig(shift=3, background=7)
    image = Image.new("RGB", (20, 20), (200, 200, 200))
    rendered = render(image, 24, small_config.image, augment, rng)
    assert rendered.shape == (30, 30, 3)
    assert rendered.mean() == pytest.approx((24 * 24 * 200 + (900 - 576) * 7) / 900)
    cuts = {augment_rendering(rendered, 24, augment, rng).tobytes() for _ in range(400)}
    assert len(cuts) == 49  # 7 x 7 places


def test_scale_bounds_the_drawn_size(rng, small_config):
    augment = AugmentConfig(scale=(0.5, 0.75), background=0)
    image = Image.new("RGB", (20, 20), "white")
    sides = [
        int((render(image, 24, small_config.image, augment, rng)[..., 0] == 255).any(0).sum())
        for _ in range(60)
    ]
    assert min(sides) >= 12 and max(sides) <= 18 and len(set(sides)) >= 6


def test_recolouring_keeps_the_background_and_grey_loses_colour(rng):
    picture = np.full((8, 8, 3), 255, np.uint8)
    picture[2:6, 2:6] = (200, 30, 60)
    strong = AugmentConfig(recolour=1.0, hue=1.0)
    for _ in range(20):
        changed = augment_rendering(picture, 8, strong, rng)
        assert (changed[0] == 255).all() and (changed[3, 3] != picture[3, 3]).any()
    grey = augment_rendering(picture, 8, AugmentConfig(grey=1.0), rng)[3, 3].astype(int)
    luma = 0.299 * 200 + 0.587 * 30 + 0.114 * 60
    assert np.abs(grey - luma).max() <= 1


def test_outlines_are_black_where_colours_meet(rng, small_config):
    image = Image.new("RGB", (40, 40), "white")
    image.paste((90, 160, 250), (10, 10, 30, 30))
    drawn = render(image, 40, small_config.image, AugmentConfig(outline=1.0), rng)
    assert (drawn[20, 10] == 0).all() and (drawn[20, 20] == (90, 160, 250)).all()


def test_sources_that_cannot_be_read(tmp_path, train_config):
    with pytest.raises(InputError, match="no prepared data set here"):
        Split(tmp_path, "train")
    with pytest.raises(InputError, match="has no split 'trane'; expected one of"):
        open_split(train_config.data, "trane")
    data = dataclasses.replace(train_config.data, name=str(tmp_path / "absent"))
    with pytest.raises(InputError, match="or the folder of a prepared TFDS set"):
        open_split(data, "train")


def test_a_prepared_folder_is_a_source(train_config):
    folder = build_builtin_set("digits_ru", train_config.data.directory)
    data = dataclasses.replace(train_config.data, name=str(folder))
    by_folder, by_name = open_split(data, "test"), open_split(train_config.data, "test")
    assert len(by_folder) == len(by_name)
    assert by_folder[5] == by_name[5]


def test_a_built_in_set_is_built_once_by_several_at_a_time(tmp_path):
    places = 3 * [tmp_path / "data"]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda place: build_builtin_set("digits_ru", place), places))
    assert len(set(found)) == 1 and len(Split(found[0], "train")) == 1431
    made = {path.name for path in (tmp_path / "data" / "digits_ru").iterdir()}
    assert made == {found[0].name}  # nothing half-written


def test_a_built_in_set_is_not_built_in_a_bucket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="gs://bucket/data: a built-in set cannot be in a bucket"):
        build_builtin_set("digits_ru", "gs://bucket/data")
    assert not list(tmp_path.iterdir())  # no folder "gs:"
