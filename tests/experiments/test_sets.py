"""Labelled sets by name: embedded ones and folders of pictures; what is wrong is one line."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from clip_jax import InputError
from experiments.evaluation.sets import RECORDS, MissingSet, open_set


def picture(i, format="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), (i, 2 * i, 255 - i)).save(buffer, format)
    return buffer.getvalue()


def make_tree(folder, splits):
    """SPLIT/CLASS/*.png of splits {name: {class: how many}}; returns the bytes by path."""
    written = {}
    for split, classes in splits.items():
        for name, count in classes.items():
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                written[f"{split}/{name}/{i}.png"] = picture(len(written))
                (folder / split / name / f"{i}.png").write_bytes(picture(len(written) - 1))
    return written


def test_embedded_digits(data_directory):
    test = open_set("digits_ru", "test", data_directory)
    assert (len(test), test.version) == (167, "digits_ru:1.0.0")
    assert test.class_names[:2] == ("ноль", "один") and test.labels.dtype == np.int64
    first = Image.open(io.BytesIO(test.image(0)))
    assert first.size == (8, 8)
    assert test.pictures[2:4] == [test.image(2), test.image(3)]
    with pytest.raises(IndexError):
        test.image(167)
    both = open_set("digits_ru", "train+validation", data_directory)
    assert len(both) == 1431 + 199 and len(set(both.keys)) == len(both)
    validation = open_set("digits_ru", "validation", data_directory)
    assert both.image(1431) == validation.image(0)
    assert both.keys[1431] == f"validation/{validation.keys[0]}"
    np.testing.assert_array_equal(both.labels[1431:], validation.labels)


def test_a_folder_of_ones_own(tmp_path):
    own = tmp_path / "птицы"
    written = make_tree(
        own, {"test": {"сова": 2, "дрозд": 3}, "val": {"утка": 1}, "empty": {"сова": 0}}
    )
    (own / "test" / "сова" / ".hidden.png").write_bytes(b"")
    (own / "test" / "сова" / "list.txt").write_text("no picture")
    test = open_set(str(own))
    # Of all splits, so that train and test agree.
    assert test.class_names == ("дрозд", "сова", "утка")
    assert test.labels.tolist() == [0, 0, 0, 1, 1]
    assert test.keys[3] == "сова/0.png" and test.name == "птицы"
    assert [test.image(i) for i in range(5)] == [written[f"test/{key}"] for key in test.keys]
    validation = open_set(str(own), "validation")
    assert validation.labels.tolist() == [2]
    with pytest.raises(InputError, match="has no split 'train'; found test, val"):
        open_set(str(own), "train")
    (own / "test" / "сова" / "0.png").unlink()
    with pytest.raises(InputError, match="0.png: picture cannot be read"):
        test.image(3)


def test_the_hash_tells_sets_apart(tmp_path):
    classes = {"test": {"сова": 2, "дрозд": 3}}
    make_tree(tmp_path / "a", classes)
    make_tree(tmp_path / "b", classes)
    a, b = (open_set(str(tmp_path / name)).source_hash for name in "ab")
    assert a == b
    (tmp_path / "b" / "test" / "сова" / "1.png").write_bytes(picture(99))
    changed = open_set(str(tmp_path / "b")).source_hash
    (tmp_path / "b" / "test" / "сова").rename(tmp_path / "b" / "test" / "утка")
    assert len({a, changed, open_set(str(tmp_path / "b")).source_hash}) == 3


def test_sets_that_are_not_there(tmp_path):
    for name, record in RECORDS.items():
        if record.source == "embedded":
            continue
        with pytest.raises(MissingSet) as caught:
            open_set(name, "test", tmp_path)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"{name}: not in {tmp_path}; ")
        source = record.source.replace(":", "/") if record.is_tfds else name
        assert str(tmp_path / source) in line
    with pytest.raises(InputError, match="data set 'food' is unknown; expected a folder or one of"):
        open_set("food", "test", tmp_path)
    (tmp_path / "own").mkdir()
    with pytest.raises(InputError, match="own: is none of TFDS, class folders"):
        open_set(str(tmp_path / "own"))


def test_sizes_that_are_not_the_expected(tmp_path):
    make_tree(tmp_path / "birdsnap", {"test": {"a": 1, "b": 2}, "train": {"a": 1}})
    birdsnap = dataclasses.replace(RECORDS["birdsnap"], classes=2, examples={"test": 4})
    # Copies of it differ.
    assert len(open_set("birdsnap", "test", tmp_path, {"birdsnap": birdsnap})) == 3
    exact = dataclasses.replace(birdsnap, exact=True)
    with pytest.raises(InputError, match="birdsnap: split 'test' has 3 examples; expected 4"):
        open_set("birdsnap", "test", tmp_path, {"birdsnap": exact})
    with pytest.raises(InputError, match="birdsnap: has 2 classes; expected 500"):
        open_set("birdsnap", "test", tmp_path)
