"""Each of the report's 18 sets as a miniature in the true layout of its source.

TFDS's own builders write theirs, from the features and names in its wheel; only what they would
download is made up.
"""

import contextlib
import dataclasses
import io

import pytest
import tensorflow_datasets as tfds
from label_sources import make_table, make_tars, make_tree, picture, tf_record_file, to_tf_records

from clip_jax import InputError
from experiments.evaluation.prompts.class_names import load_class_names
from experiments.evaluation.sets import RECORDS, open_set
from experiments.evaluation.sets.table import REPORT

# Names that TFDS finds in the downloaded files.
DOWNLOADED_NAMES = {
    "cifar10": {
        "label": [
            "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"
        ]
    },
    "cifar100": {
        "label": [f"fine {i}" for i in range(100)],
        "coarse_label": [f"coarse {i}" for i in range(20)],
    },
    "stl10": {
        "label": [
            "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"
        ]
    },
}  # fmt: skip

# Splits of the source, with the label of each example; what an example has beside it.
MADE = {
    "food101": ({"train": [0, 100], "validation": [5, 100, 7]}, lambda i, s: {}),
    "cifar10": ({"train": [9], "test": [3, 0]}, lambda i, s: {"id": f"{s}_{i:05d}"}),
    "cifar100": (
        {"train": [99], "test": [3, 0]}, lambda i, s: {"id": f"{s}_{i:05d}", "coarse_label": 1}
    ),
    "sun397": ({"train": [0], "test": [396, 1]}, lambda i, s: {"file_name": f"/a/abbey/{i}.jpg"}),
    "dtd": (
        {"train": [0, 2], "test": [46, 1], "validation": [3]},
        lambda i, s: {"file_name": f"banded/banded_{i:04d}.jpg"},
    ),
    "mnist": ({"train": [9, 3], "test": [7, 0]}, lambda i, s: {}),
    "stl10": ({"train": [9], "test": [2, 0], "unlabelled": [-1]}, lambda i, s: {}),
    "patch_camelyon": (
        {"test": [0, 1], "train": [1, 0], "validation": [1]}, lambda i, s: {"id": f"{s}_{i}"}
    ),
    "clevr_counts": (
        {"train": [4], "validation": [0, 7, 2], "test": [-3]},
        lambda i, s: {"file_name": f"CLEVR_{s}_{i:06d}.png"},
    ),
    "imagenet": ({"train": [0], "validation": [999, 1]}, lambda i, s: {"file_name": f"{i}.JPEG"}),
    "oxford_pets": ({"train": [0], "test": [36, 1]}, lambda i, s: {"file_name": f"Cat_{i}.jpg"}),
    "caltech101": (
        {"train": [0], "test": [101, 1]}, lambda i, s: {"image/file_name": "image_0001.jpg"}
    ),
    "oxford_flowers102": (
        {"train": [0], "test": [101, 1], "validation": [5]},
        lambda i, s: {"file_name": f"image_{i:05d}.jpg"},
    ),
    "stanford_cars": ({"train": [0], "test": [195, 1]}, lambda i, s: {"id": f"{i:05d}"}),
}
SHAPES = {
    "mnist": ("L", (28, 28)),
    "cifar10": ("RGB", (32, 32)),
    "cifar100": ("RGB", (32, 32)),
    "stl10": ("RGB", (96, 96)),
    "patch_camelyon": ("RGB", (96, 96)),
}

def made_picture(name, i):
    mode, size = SHAPES.get(name, ("RGB", (6, 4)))
    return picture(i, "PNG", mode, size)


def example(name, i, split, label):
    """Return an example as the builder's own generator yields it."""
    found = {"image": io.BytesIO(made_picture(name, i)), **MADE[name][1](i, split)}
    if name == "clevr_counts":
        thing = {
            "color": "red", "material": "metal", "shape": "cube", "size": "small",
            "rotation": 0.5, "3d_coords": [0.0, 1.0, 2.0], "pixel_coords": [3.0, 4.0, 5.0],
        }  # fmt: skip
        question = {"question": "How many things?", "answer": str(label + 3)}
        return {**found, "objects": [thing] * (label + 3), "question_answer": [question]}
    if name == "oxford_pets":
        found |= {
            "species": 0,
            "segmentation_mask": io.BytesIO(picture(i, "PNG", "L")),
            "head_bbox": tfds.features.BBox(0.1, 0.2, 0.3, 0.4),
        }
    if name == "stanford_cars":
        found["bbox"] = tfds.features.BBox(0.1, 0.2, 0.3, 0.4)
    return {**found, "label": label}


def prepare(name, source, directory):
    """Runs TFDS's builder, download apart."""
    builder = tfds.builder(source, data_dir=directory, file_format="array_record")

    def generators(_):
        for feature, names in DOWNLOADED_NAMES.get(name, {}).items():
            builder.info.features[feature].names = names
        return {
            split: ((i, example(name, i, split, label)) for i, label in enumerate(labels))
            for split, labels in MADE[name][0].items()
        }

    builder._split_generators = generators
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare()
    return builder


def miniature(record, directory):
    """The record of what is made up, and {our split: [(label, image)]}."""
    folder = directory / record.name
    if record.is_tfds:
        prepare(record.name, record.source, directory)
        made = {
            split: [(label, made_picture(record.name, i)) for i, label in enumerate(labels)]
            for split, labels in MADE[record.name][0].items()
        }
        made = {split: made[record.source_split(split)] for split in record.examples}
    elif record.name == "birdsnap":
        splits = {"train": {"Acadian_Flycatcher": 1}, "test": {"Acorn_Woodpecker": 2}}
        written = make_tree(folder, splits)
        made = {
            split: [(i, data) for path, data in written.items() if path.startswith(split)]
            for i, split in enumerate(("train", "test"))
        }
    elif record.name == "hateful_memes":
        made = {}
        for split, labels in (("train", [0, 0, 1]), ("dev_seen", [1, 0])):
            data = make_table(folder, f"{split}.jsonl", labels, image="img")
            made["test" if split == "dev_seen" else split] = list(zip(labels, data, strict=True))
        (folder / "test_seen.jsonl").write_text('{"id": 1, "img": "img/1.png", "text": "t"}\n')
    else:
        labels = {"train": [1, 0, 1], "test": [0, 1]}
        written = make_tars(folder, labels, [f"class {i}" for i in range(record.classes)])
        made = {s: list(zip(labels[s], written[s], strict=True)) for s in labels}
    classes = 2 if record.name == "birdsnap" else record.classes
    sizes = {split: len(rows) for split, rows in made.items()}
    return dataclasses.replace(record, classes=classes, examples=sizes), made


@pytest.mark.parametrize("name", REPORT)
def test_miniature(name, tmp_path):
    record, made = miniature(RECORDS[name], tmp_path)
    for split, rows in made.items():
        opened = open_set(name, split, tmp_path, {name: record})
        assert opened.name == name and len(opened.class_names) == record.classes
        # TFDS shuffles: by the images, which all differ.
        found = {opened.image(i): int(opened.labels[i]) for i in range(len(opened))}
        assert found == {data: label for label, data in rows}
    smaller = dataclasses.replace(record, examples={"test": len(made["test"]) + 1}, fixed_size=True)
    with pytest.raises(InputError, match=rf"{name}: split 'test' has \d examples; expected \d"):
        open_set(name, "test", tmp_path, {name: smaller})
    with pytest.raises(InputError, match=rf"{name}: has {record.classes} classes; expected 7"):
        open_set(name, "test", tmp_path, {name: dataclasses.replace(record, classes=7)})


def test_tfrecord_form_reads_the_same(tmp_path):
    record, made = miniature(RECORDS["oxford_pets"], tmp_path)
    records = {record.name: record}
    folder = tmp_path / "oxford_iiit_pet" / "4.0.0"
    expected = open_set(record.name, "test", tmp_path, records)
    to_tf_records(folder)
    found = open_set(record.name, "test", tmp_path, records)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.source_hash == expected.source_hash and found.keys == expected.keys
    (file,) = folder.glob("*-test.tfrecord*")
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError, match="split 'test' is damaged: the file is cut off"):
        open_set(record.name, "test", tmp_path, records)
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"tfrecord"', '"riegeli"'))
    with pytest.raises(InputError, match="in the form riegeli; expected .* convert it with"):
        open_set(record.name, "test", tmp_path, records)


def test_tfds_sets_that_are_wrong(tmp_path):
    record, _ = miniature(RECORDS["mnist"], tmp_path)
    for change, message in (
        ({"label": "digit"}, "features are image, label; expected digit"),
        ({"label": "image"}, "feature 'image' is Image.*; expected a ClassLabel"),
    ):
        with pytest.raises(InputError, match=message):
            open_set("mnist", "test", tmp_path, {"mnist": dataclasses.replace(record, **change)})
    folder = to_tf_records(tmp_path / "mnist" / "3.0.1")
    (file,) = folder.glob("*-test.tfrecord*")
    file.write_bytes(tf_record_file([b"\xff" * 20]))
    with pytest.raises(InputError, match="example 0 of split 'test' cannot be read: "):
        open_set("mnist", "test", tmp_path, {"mnist": record})
    file.unlink()
    with pytest.raises(InputError, match="mnist-test.tfrecord-00000-of-00001 is missing"):
        open_set("mnist", "test", tmp_path, {"mnist": record})
    record, _ = miniature(RECORDS["stl10"], tmp_path)
    with pytest.raises(InputError, match="split 'unlabelled' has label -1; expected 0 to 9"):
        open_set("stl10", "unlabelled", tmp_path, {"stl10": record})


def test_keys_are_the_sources_own(tmp_path):
    keys = {
        "sun397": {"/a/abbey/0.jpg", "/a/abbey/1.jpg"},
        "caltech101": {"yin_yang/image_0001.jpg", "airplanes/image_0001.jpg"},
        "mnist": {"test[0]", "test[1]"},
    }
    for name, expected in keys.items():
        record, _ = miniature(RECORDS[name], tmp_path)
        assert set(open_set(name, "test", tmp_path, {name: record}).keys) == expected


def test_another_order_of_classes_changes_no_name(tmp_path):
    """A copy of CIFAR10 as tars, in whose file of names the classes come in another order."""
    names = DOWNLOADED_NAMES["cifar10"]["label"]
    record, made = miniature(RECORDS["cifar10"], tmp_path / "tfds")
    labels = [names[::-1].index(names[label]) for label, _ in made["test"]]
    make_tars(tmp_path / "tars" / "cifar10", {"test": labels}, names[::-1])
    named = []
    for place in ("tfds", "tars"):
        opened = open_set("cifar10", "test", tmp_path / place, {"cifar10": record})
        named.append(sorted(opened.class_names[label] for label in opened.labels))
        texts = load_class_names("cifar10", "ru").prompts(opened.class_names)
        assert any("кошк" in text for text in texts[opened.class_names.index("cat")])
    assert named[0] == named[1] == ["airplane", "cat"]


@pytest.mark.parametrize("name", ["patch_camelyon", "clevr_counts", "hateful_memes"])
def test_names_of_numbered_classes_are_known(name):
    record = RECORDS[name]
    assert len(load_class_names(name, "ru").prompts(record.class_names)) == record.classes
