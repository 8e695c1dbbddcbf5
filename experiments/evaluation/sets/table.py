"""The 18 data sets of the ruCLIP report, in its order, and the two that come out of wheels.

Splits, numbers and metrics are those of the CLIP paper (Radford et al. 2021, appendix A.1) where
the source has them; docs/evaluation_sets.md says where it has not.
"""

from __future__ import annotations

from typing import Any

from experiments.data import emoji_ru
from experiments.evaluation.sets.record import BUILTIN, FOLDER, SetRecord

PREPARE = (
    "prepare it where tensorflow is installed: "
    "tfds.builder({name!r}, file_format='array_record').download_and_prepare(), "
    "and put it at {{place}}"
)
HUB = "hf download clip-benchmark/wds_{name} --repo-type dataset --local-dir {{folder}}"


def _prepare(source: str) -> str:
    return PREPARE.format(name=source)


def _tfds(source: str, **fields: Any) -> SetRecord:
    return SetRecord(source=source, download_hint=_prepare(source), **fields)


_ALL = (
    _tfds(
        "food101:2.0.0",
        name="food101", title="Food101", metric="accuracy", classes=101,
        examples={"train": 75750, "test": 25250}, splits={"test": "validation"},
    ),
    _tfds(
        "cifar10:3.0.2",
        name="cifar10", title="CIFAR10", metric="accuracy", classes=10,
        examples={"train": 50000, "test": 10000},
    ),
    _tfds(
        "cifar100:3.0.2",
        name="cifar100", title="CIFAR100", metric="accuracy", classes=100,
        examples={"train": 50000, "test": 10000},
    ),
    SetRecord(
        name="birdsnap", title="Birdsnap", source=FOLDER, metric="accuracy", classes=500,
        examples={"train": 42283, "test": 2149}, fixed_size=False,
        download_hint="fetch what is left of it with get_birdsnap.py from "
        "https://thomasberg.org/datasets/birdsnap/1.1/birdsnap.tgz and put the images of "
        "test_images.txt into {folder}/test/SPECIES, the others into {folder}/train/SPECIES",
        note="The images' links die, so that copies differ in size.",
    ),
    _tfds(
        "sun397/standard-part1-120k:4.0.0",
        name="sun397", title="SUN397", metric="accuracy", classes=397,
        examples={"train": 19850, "test": 19850},
    ),
    SetRecord(
        name="stanford_cars", title="Stanford Cars", source="cars196:2.1.0",
        metric="accuracy", classes=196, examples={"train": 8144, "test": 8041},
        download_hint=HUB.format(name="cars"),
        note="TFDS's cars196 cannot be downloaded any more (tensorflow/datasets#5053).",
    ),
    _tfds(
        "dtd:3.0.1",
        name="dtd", title="DTD", metric="accuracy", classes=47,
        examples={"train": 1880, "validation": 1880, "test": 1880},
    ),
    _tfds(
        "mnist:3.0.1",
        name="mnist", title="MNIST", metric="accuracy", classes=10,
        examples={"train": 60000, "test": 10000},
    ),
    _tfds(
        "stl10:1.0.0",
        name="stl10", title="STL10", metric="accuracy", classes=10,
        examples={"train": 5000, "test": 8000},
        note="TFDS lacks the ten folds of 1,000 training images (openai/CLIP#45).",
    ),
    _tfds(
        "patch_camelyon:2.0.0",
        name="patch_camelyon", title="PCam", metric="accuracy", classes=2,
        examples={"train": 262144, "validation": 32768, "test": 32768},
        class_names=("no_tumor", "tumor"),
    ),
    _tfds(
        "clevr:3.1.0",
        name="clevr_counts", title="CLEVR Counts", metric="accuracy", classes=8,
        examples={"train": 70000, "test": 15000}, splits={"test": "validation"},
        label="objects", label_offset=3, class_names=tuple(map(str, range(3, 11))),
        note="OpenAI's sample of 2,000 and 500 is unpublished (openai/CLIP#245): this is VTAB's.",
    ),
    SetRecord(
        name="rendered_sst2", title="Rendered SST2", source=FOLDER, metric="accuracy", classes=2,
        examples={"train": 6920, "validation": 872, "test": 1821},
        download_hint=HUB.format(name="renderedsst2")
        + ", or put train, dev and test of "
        "https://openaipublic.azureedge.net/clip/data/rendered-sst2.tgz there",
    ),
    SetRecord(
        name="imagenet", title="ImageNet", source="imagenet2012:5.1.0", metric="accuracy",
        classes=1000, examples={"train": 1281167, "test": 50000}, splits={"test": "validation"},
        download_hint="register at https://image-net.org for ILSVRC2012_img_train.tar and "
        "ILSVRC2012_img_val.tar, put them into TFDS's manual_dir and "
        + _prepare("imagenet2012:5.1.0"),
    ),
    SetRecord(
        name="fgvc_aircraft", title="FGVC Aircraft", source=FOLDER, metric="mean_per_class",
        classes=100, examples={"train": 3334, "validation": 3333, "test": 3333},
        download_hint=HUB.format(name="fgvc_aircraft"),
    ),
    _tfds(
        "oxford_iiit_pet:4.0.0",
        name="oxford_pets", title="Oxford Pets", metric="mean_per_class", classes=37,
        examples={"train": 3680, "test": 3669},
    ),
    _tfds(
        "caltech101:3.0.2",
        name="caltech101", title="Caltech101", metric="mean_per_class", classes=102,
        examples={"train": 3060, "test": 6084},
        note="TFDS's own random split, not CLIP's, whose test has 6,085 images.",
    ),
    _tfds(
        "oxford_flowers102:2.1.1",
        name="oxford_flowers102", title="Oxford Flowers102", metric="mean_per_class", classes=102,
        examples={"train": 1020, "validation": 1020, "test": 6149},
    ),
    SetRecord(
        name="hateful_memes", title="Hateful Memes", source=FOLDER, metric="roc_auc", classes=2,
        examples={"train": 8500, "test": 500}, splits={"test": "dev_seen"},
        class_names=("not_hateful", "hateful"),
        download_hint="accept the licence at https://hatefulmemeschallenge.com and unpack "
        "train.jsonl, dev_seen.jsonl and img/ into {folder}",
    ),
    SetRecord(
        name="digits_ru", title="Digits", source=BUILTIN, metric="accuracy", classes=10,
        examples={"train": 1431, "validation": 199, "test": 167},
    ),
    SetRecord(
        name="emoji_ru", title="Emoji", source=BUILTIN, metric="accuracy", classes=9,
        examples={"train": 2876, "validation": 183, "test": 402}, label="category",
        splits={"validation": "validation_drawing", "test": "new_emoji"},
        class_names=tuple(words[0] for words in emoji_ru.CATEGORY_WORDS.values()),
        note="Categories of emoji never seen in training.",
    ),
)  # fmt: skip
RECORDS: dict[str, SetRecord] = {record.name: record for record in _ALL}
REPORT = tuple(name for name, record in RECORDS.items() if record.source != BUILTIN)
