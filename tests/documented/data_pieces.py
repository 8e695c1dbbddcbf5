"""Sources, prepared sets and other files by the names that the pages give them."""

import csv
import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from label_sources import make_tree
from PIL import Image
from workspace import COUNT, Workspace, piece

from clip_jax import predictor
from experiments.configs import digits as digits_config
from experiments.data.digits_ru import NAMES, digits
from experiments.data.preparation import prepare
from experiments.data.source import build_builtin_set
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.evaluation.prompts.class_names import load_class_names
from experiments.evaluation.prompts.translations import Translations

# Images and captions


def write_table(file: Path, header: list[str], rows: list[list[str]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([header, *rows])


def write_images(folder: Path, count: int = COUNT) -> list[list[str]]:
    """Digits of 32 pixels, and the rows of a table of them."""
    folder.mkdir()
    pixels, labels = digits()
    rows = []
    for i in range(count):
        Image.fromarray(pixels[i]).resize((32, 32)).save(folder / f"{i}.png")
        rows.append([f"{i}.png", f"рукописная цифра {NAMES[labels[i]]}"])
    return rows


@piece("photos", "pictures", "SOURCE")
def photos(space: Workspace, place: Path) -> None:
    write_table(place / "list.csv", ["image", "caption"], write_images(place))


@piece("photos_file_text")
def photos_file_text(space: Workspace, place: Path) -> None:
    write_table(place / "list.csv", ["file", "text"], write_images(place))


@piece("photos_two_tables")
def photos_two_tables(space: Workspace, place: Path) -> None:
    rows = write_images(place)
    write_table(place / "train.csv", ["image", "caption"], rows[:15])
    write_table(place / "test.csv", ["image", "caption"], rows[15:])


@piece("prompts.txt")
def prompts(space: Workspace, place: Path) -> None:
    place.write_text("красный круг\nкошка на подоконнике\n", encoding="utf-8")


@piece("photo.jpg")
def photo(space: Workspace, place: Path) -> None:
    Image.fromarray(digits()[0][3]).convert("RGB").resize((32, 32)).save(place, "JPEG")


@piece("tars")
def tars(space: Workspace, place: Path) -> None:
    place.mkdir()
    source = space.get("photos")
    with (source / "list.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    for shard in range(2):
        with tarfile.open(place / f"{shard:05d}.tar", "w") as tar:
            for name, caption in rows[shard::2]:
                _add(tar, name, (source / name).read_bytes())
                _add(tar, name.replace(".png", ".txt"), caption.encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _rows(space: Workspace) -> pa.Table:
    source = space.get("photos")
    with (source / "list.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    images = [{"bytes": (source / name).read_bytes(), "path": name} for name, _ in rows]
    return pa.table({"image": images, "caption": [caption for _, caption in rows]})


@piece("snapshot")
def snapshot(space: Workspace, place: Path) -> None:
    """Parquet as the hub stores it, with two splits."""
    (place / "data").mkdir(parents=True)
    for split in ("train", "test"):
        pq.write_table(_rows(space), place / f"data/{split}-00000-of-00001.parquet")


@piece("saved")
def saved(space: Workspace, place: Path) -> None:
    """Writes what `datasets.Dataset.save_to_disk` leaves."""
    place.mkdir()
    name, rows = "data-00000-of-00001.arrow", _rows(space)
    with pa.OSFile(str(place / name), "wb") as sink:  # noqa: SIM117
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
    state = {"_data_files": [{"filename": name}], "_split": "train"}
    (place / "state.json").write_text(json.dumps(state))
    (place / "dataset_info.json").write_text("{}")


@piece("tensorflow_datasets")
def tensorflow_datasets(space: Workspace, place: Path) -> None:
    """`coco_captions/2014/1.1.0`, its captions as a sequence of dicts."""
    import tensorflow_datasets as tfds

    build_builtin_set("digits_ru", place.with_name("digits"))  # quiets TFDS

    # Other tests may have made TFDS register its own of this name.
    with tfds.core.registered.skip_registration():

        class CocoCaptions(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("1.1.0")
            BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2014", version=VERSION)]

            def _info(self):
                captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
                image = tfds.features.Image(encoding_format="png")
                features = {"image": image, "captions": captions}
                return tfds.core.DatasetInfo(
                    builder=self, features=tfds.features.FeaturesDict(features)
                )

            def _split_generators(self, _):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                source = space.get("photos")
                for i in range(COUNT):
                    captions = [{"id": 2 * i + k, "text": f"подпись {k}"} for k in range(2)]
                    yield i, {"image": str(source / f"{i}.png"), "captions": captions}

    builder = CocoCaptions(config="2014", data_dir=str(place), file_format="array_record")
    builder.download_and_prepare()


# Questions


def write_questions(place: Path) -> None:
    place.mkdir()
    rows = []
    for i in range(COUNT):
        context = f"лес номер {i} красный, а дом синий"
        rows += [[context, "какой лес?", "красный"], [context, "какой дом?", "синий"]]
    write_table(place / "train.csv", ["context", "question", "answer"], rows)


@piece("sberquad")
def sberquad(space: Workspace, place: Path) -> None:
    write_questions(place)


@piece("vqa")
def vqa(space: Workspace, place: Path) -> None:
    """FBC2's form: questions beside their answers, and the images that they name."""
    write_images(place)
    asked, answered = {}, {}
    for i in range(COUNT):
        text = {"type": "text", "content": "какая цифра?"}
        asked[str(i)] = [text, {"type": "image", "content": f"{i}.png"}]
        answered[str(i)] = [{"type": "text", "content": [NAMES[digits()[1][i]]]}]
    for name, content in (("vqa_train", asked), ("vqa_train_answer", answered)):
        (place / f"{name}.json").write_text(json.dumps(content), "utf-8")


# Prepared sets


@piece("data/mine")
def data_mine(space: Workspace, place: Path) -> None:
    """Captions alone, with a validation split."""
    prepare(SourceConfig(str(space.get("photos"))), place, WriteConfig(validation=0.3))


@piece("data_test")
def data_test(space: Workspace, place: Path) -> None:
    prepare(SourceConfig(str(space.get("photos"))), place, WriteConfig(split="test"))


@piece("data/sberquad")
def data_sberquad(space: Workspace, place: Path) -> None:
    source = SourceConfig(str(space.get("sberquad")), form="text-questions")
    prepare(source, place, WriteConfig(split="test"))


@piece("runs/data")
def runs_data(space: Workspace, place: Path) -> None:
    build_builtin_set("digits_ru", place)


@piece("own_set")
def own_set(space: Workspace, place: Path) -> None:
    """train/CLASS and test/CLASS."""
    make_tree(place, {"train": {"кошка": 3, "собака": 3}, "test": {"кошка": 2, "собака": 2}})


@piece("cifar10")
def cifar10(space: Workspace, place: Path) -> None:
    names = load_class_names("cifar10", "en").names
    make_tree(place, {"test": dict.fromkeys(names, 2)})




@piece("translations.json")
def translations(space: Workspace, place: Path) -> None:
    prompts = [t.format(name) for t in predictor.TEMPLATES for name in ("кошка", "собака")]
    texts = {prompt: "a cat" if "кошка" in prompt else "a dog" for prompt in prompts}
    Translations(place, {"name": "opus-mt-ru-en"}, texts).save()


@piece("digits.json")
def digits_json(space: Workspace, place: Path) -> None:
    place.write_text(json.dumps({"zero_shot": {"accuracy": 0.982}}))


@piece("FILE")
def experiment_file(space: Workspace, place: Path) -> None:
    shutil.copy(digits_config.__file__, place)
