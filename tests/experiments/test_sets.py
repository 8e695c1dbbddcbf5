"""Labelled sets by name: built-in ones and folders of images; what is wrong is one line."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from label_sources import make_parquet, make_table, make_tars, make_tree, picture
from PIL import Image

from clip_jax import InputError
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.evaluation.sets import RECORDS, MissingSet, open_captioned, open_set
from experiments.evaluation.sets.record import SPLITS
from experiments.evaluation.sets.table import REPORT


def test_builtin_digits(data_directory):
    test = open_set("digits_ru", "test", data_directory)
    assert (len(test), test.version) == (167, "digits_ru:1.0.0")
    assert test.class_names[:2] == ("ноль", "один") and test.labels.dtype == np.int64
    first = Image.open(io.BytesIO(test.image(0)))
    assert first.size == (8, 8)
    assert test.images[2:4] == [test.image(2), test.image(3)]
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
    with pytest.raises(InputError, match="0.png: image cannot be read"):
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
        if record.source == "built-in":
            continue
        with pytest.raises(MissingSet) as caught:
            open_set(name, "test", tmp_path)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"{name}: not in {tmp_path}; ")
        places = (tmp_path / name, tmp_path / record.source.replace(":", "/"))
        assert any(str(place) in line for place in places)
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
    exact = dataclasses.replace(birdsnap, fixed_size=True)
    with pytest.raises(InputError, match="birdsnap: split 'test' has 3 examples; expected 4"):
        open_set("birdsnap", "test", tmp_path, {"birdsnap": exact})
    with pytest.raises(InputError, match="birdsnap: has 2 classes; expected 500"):
        open_set("birdsnap", "test", tmp_path)


def pictures_of(opened):
    """Return all of them, requested in another order."""
    found = {i: opened.image(i) for i in reversed(range(len(opened)))}
    return [found[i] for i in range(len(opened))]


@pytest.mark.parametrize("kind", [".csv", ".tsv", ".jsonl"])
def test_tables_of_names(tmp_path, kind):
    written = make_table(tmp_path, f"test{kind}", ["сова", "дрозд", "сова"], "file", "class")
    make_table(tmp_path, f"train{kind}", ["утка"], "file", "class")
    (tmp_path / "captions.csv").write_text("file,caption\nimg/0.png,птица\n", encoding="utf-8")
    test = open_set(str(tmp_path))
    assert test.class_names == ("дрозд", "сова", "утка") and test.labels.tolist() == [1, 0, 1]
    assert test.keys == ("img/0.png", "img/1.png", "img/2.png")
    assert pictures_of(test) == written


def test_tables_of_numbers(tmp_path):
    make_table(tmp_path, "test.csv", [10, 2, 10])
    assert open_set(str(tmp_path)).class_names == ("2", "10")
    (tmp_path / "classnames.txt").write_text("ноль\nодин\nдва\n\n", encoding="utf-8")
    with pytest.raises(InputError, match="label '10', which is no class; expected one of 3 names"):
        open_set(str(tmp_path))
    (tmp_path / "test.csv").write_text("image,label\nimg/0.png,2\nimg/0.png,один\n", "utf-8")
    test = open_set(str(tmp_path))
    assert test.labels.tolist() == [2, 1] and test.class_names[2] == "два"
    assert test.keys == ("img/0.png#2", "img/0.png#3")


def test_names_that_look_like_numbers(tmp_path):
    make_table(tmp_path, "test.csv", ["4", "3"])
    make_table(tmp_path, "train.jsonl", [1, 0])
    (tmp_path / "classnames.txt").write_text("3\n4\n")
    # Numbers are places; "4" can only be a name.
    assert open_set(str(tmp_path), "train").labels.tolist() == [1, 0]
    assert open_set(str(tmp_path)).labels.tolist() == [1, 0]
    (tmp_path / "classnames.txt").write_text("3\n4\n1\n")
    assert open_set(str(tmp_path), "train").labels.tolist() == [1, 0]
    make_table(tmp_path, "validation.csv", ["1"])
    with pytest.raises(InputError, match="has label '1', which is a name and another's number"):
        open_set(str(tmp_path), "validation")


def test_tables_that_are_wrong(tmp_path):
    make_table(tmp_path, "test.jsonl", ["a", "b"])
    (tmp_path / "img" / "1.png").unlink()
    with pytest.raises(InputError, match="row 2: image is missing: 'img/1.png'"):
        open_set(str(tmp_path))
    (tmp_path / "img" / "1.png").symlink_to("/etc/hostname")
    with pytest.raises(InputError, match="path leaves the folder"):
        open_set(str(tmp_path)).image(1)
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write('\n{"image": "img/0.png"}')
    with pytest.raises(InputError, match="test.jsonl: row 3: image or label is missing"):
        open_set(str(tmp_path))
    make_table(tmp_path, "test.csv", ["a"])
    with pytest.raises(InputError, match="test.csv and test.jsonl are one split"):
        open_set(str(tmp_path))


def test_tars_of_clip_benchmark(tmp_path):
    labels = [i % 3 for i in range(23)]  # twelve shards: 10.tar comes after 9.tar
    written = make_tars(tmp_path, {"test": labels, "train": [1]}, ["abbey", "airplane cabin", "z"])
    test = open_set(str(tmp_path))
    assert test.class_names == ("abbey", "airplane cabin", "z") and test.labels.tolist() == labels
    assert test.keys[21] == "s0000021" and pictures_of(test) == written["test"]
    tar = tmp_path / "test" / "11.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:1024])
    with pytest.raises(InputError, match="11.tar: s0000022: has no image or no cls"):
        open_set(str(tmp_path))
    tar.write_bytes(whole[:700])
    with pytest.raises(InputError, match="11.tar: .*damaged"):
        open_set(str(tmp_path))
    tar.write_bytes(whole)
    (tmp_path / "classnames.txt").unlink()
    with pytest.raises(InputError, match="has no classnames.txt; expected the classes' names"):
        open_set(str(tmp_path))
    (tmp_path / "classnames.txt").write_text("abbey\nairplane cabin\n")
    with pytest.raises(InputError, match="has label 2, which is no class; expected one of 2"):
        open_set(str(tmp_path))


def test_parquet_of_the_hub(tmp_path):
    labels = [0, 1, 1, 0, 1, 0, 1]
    written = make_parquet(tmp_path, {"test": labels, "train": [1, 1]}, ["сова", "дрозд"])
    test = open_set(str(tmp_path))
    assert test.class_names == ("сова", "дрозд") and test.labels.tolist() == labels
    assert test.keys[6] == "test[6]" and pictures_of(test) == written["test"]
    file = tmp_path / "data" / "test-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="test-00001-of-00002.parquet: cannot be read as Parquet"):
        open_set(str(tmp_path))


def test_parquet_of_names(tmp_path):
    for split, labels in {"test": ["сова", "дрозд"], "dev": ["утка"]}.items():
        table = pa.table({"img": [picture(i) for i in range(len(labels))], "class": labels})
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    test = open_set(str(tmp_path))
    # Of all splits, so that train and test agree.
    assert test.class_names == ("дрозд", "сова", "утка") and test.labels.tolist() == [1, 0]
    assert open_set(str(tmp_path), "validation").labels.tolist() == [2]
    pq.write_table(pa.table({"img": [b""]}), tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(InputError, match="columns are img; expected one of label, labels, class"):
        open_set(str(tmp_path))


def test_layouts_that_cannot_be_told(tmp_path):
    make_tree(tmp_path, {"test": {"a": 1}})
    make_table(tmp_path, "test.csv", ["a"])
    with pytest.raises(InputError, match="could be class folders or tables; expected one"):
        open_set(str(tmp_path))


def test_captions_of_a_prepared_set(tmp_path):
    source = tmp_path / "source"
    rows = ["image,caption"]
    source.mkdir()
    for i in range(3):
        (source / f"{i}.png").write_bytes(picture(i))
        rows += [f"{i}.png,подпись {i}-{j}" for j in range(i + 1)]
    (source / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    prepare(SourceConfig(str(source)), tmp_path / "out")
    opened = open_captioned(tmp_path / "out", "train")
    found = dict(zip(opened.keys, opened.captions, strict=True))
    assert found["2.png"] == ("подпись 2-0", "подпись 2-1", "подпись 2-2")
    place = opened.keys.index("1.png")
    assert len(opened) == 3 and opened.image(place) == opened.images[place] == picture(1)
    assert len(opened.source_hash) == 64
    with pytest.raises(InputError, match="has no split 'test'; expected one of train"):
        open_captioned(tmp_path / "out")


def test_captions_of_builtin_sets(data_directory):
    digits = open_captioned("digits_ru", "test", data_directory)
    assert len(digits) == 167 and all(len(captions) == 6 for captions in digits.captions)
    assert digits.keys[3] == "test[3]" and digits.name == "digits_ru"


def test_the_docs_tell_what_the_records_say():
    text = (Path(__file__).parents[2] / "docs" / "evaluation_sets.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    told = {row[0].strip("`"): row[1:] for row in rows if len(row) == 7}
    for name in REPORT:
        record, (classes, *examples, metric, source) = RECORDS[name], told[name]
        numbers = [cell.replace(",", "").strip(" ¹²") for cell in (classes, *examples)]
        expected = [record.classes, *(record.examples.get(split, "") for split in SPLITS)]
        assert numbers == [str(number) for number in expected], name
        assert {"mean per class": "mean_per_class", "ROC-AUC": "roc_auc"}.get(
            metric, metric
        ) == record.metric
        assert record.source in source
        assert ("¹" in examples[2]) != record.fixed_size
