"""The digits: every image once, unharmed, in a split that its pixels alone decide."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from clip_jax.image import open_image
from experiments.data.digits_ru import NAMES, TEMPLATES, digits, split_of
from experiments.data.source import Split, build_builtin_set

SIZES = {"train": 1431, "validation": 199, "test": 167}


@pytest.fixture(scope="module")
def splits(data_directory):
    folder = build_builtin_set("digits_ru", data_directory)
    return {name: Split(folder, name) for name in SIZES}


def test_splits_hold_every_digit_once(splits):
    assert {name: len(split) for name, split in splits.items()} == SIZES
    ids = [row["id"] for split in splits.values() for row in split]
    assert sorted(ids) == list(range(1797))


def test_pixels_and_labels_are_scikit_learns(splits):
    source = load_digits()
    for row in splits["test"]:
        picture = np.asarray(open_image(row["image"]))
        assert picture.shape == (8, 8, 3)
        assert (picture == picture[..., :1]).all()
        # 255 / 16 is no whole number, but rounding to 256 levels loses none of the 17.
        levels = np.rint(picture[..., 0] * (16 / 255))
        np.testing.assert_array_equal(levels, source.images[row["id"]])
        assert row["label"] == source.target[row["id"]]


def test_captions_name_the_label(splits):
    for row in splits["validation"]:
        assert row["captions"] == [t.format(NAMES[row["label"]]) for t in TEMPLATES]
    assert splits["test"].features["label"].names == list(NAMES)


def test_equal_pictures_share_a_split():
    pictures, _ = digits()
    splits_of_pixels = {}
    for picture in pictures:
        splits_of_pixels.setdefault(picture.tobytes(), set()).add(split_of(picture))
    assert all(len(splits) == 1 for splits in splits_of_pixels.values())
    assert Counter(map(split_of, pictures)) == SIZES


def test_every_digit_is_in_every_split():
    pictures, labels = digits()
    for name in SIZES:
        assert {y for p, y in zip(pictures, labels, strict=True) if split_of(p) == name} == set(
            range(10)
        )
