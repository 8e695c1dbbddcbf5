"""Small files and folders under the names that the pages give them."""

import csv
import dataclasses
import functools
import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from foreign import hf_folder, openai_checkpoint
from label_sources import make_tree
from PIL import Image

import clip_jax
import converters
import rudolph_jax
from clip_jax import PretrainedClip, predictor
from clip_jax.byte_bpe import CLIP, RUGPT3, ByteBpe
from clip_jax.layers import unstack_layers
from clip_jax.model import abstract_params as clip_params
from converters import torch_file, torch_writer
from experiments.config.data import AugmentConfig
from experiments.configs import digits as digits_config
from experiments.data.digits_ru import NAMES, TEMPLATES, digits
from experiments.data.preparation import prepare
from experiments.data.source import build_builtin_set
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.data.vocabulary import train_tokenizer
from experiments.evaluation.prompts.class_names import load_class_names
from experiments.evaluation.prompts.translations import Translations
from experiments.train import train
from rudolph_jax import PretrainedRudolph, PretrainedVqgan, RudolphConfig
from rudolph_jax.model import abstract_params
from rudolph_jax.vqgan import init_params

GOLDENS = Path(__file__).parents[1] / "goldens"
COUNT = 20  # of images
PIECES: dict[str, Callable[["Workspace", Path], None]] = {}


def piece(*names: str):
    """Registers how a file or folder is made at a path; other names of it get a copy."""

    def register(make):
        PIECES.update(dict.fromkeys(names, make))
        return make

    return register


class Workspace:
    """Makes each piece once, in `store`, and lays copies of it out.

    byte_vocabulary, small_config: the fixtures of these names.
    """

    def __init__(self, store: Path, byte_vocabulary, small_config) -> None:
        self.store, self.byte_vocabulary, self.small_config = store, byte_vocabulary, small_config

    @functools.cache  # noqa: B019
    def _made(self, make) -> Path:
        place = self.store / make.__name__
        make(self, place)
        return place

    def get(self, name: str) -> Path:
        return self._made(PIECES[name])

    def lay_out(self, needs: str, here: Path) -> None:
        """needs: names of pieces; PLACE=PIECE where a page calls a piece otherwise."""
        for need in needs.split():
            place, _, name = need.partition("=")
            source, target = self.get(name or place), here / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)


# Model folders, of random or hardly trained parameters


@piece("models/ruclip", "models/ruclip-vit-base-patch16-384", "runs/mine/model",
       "runs/quickstart-emoji/ruclip/model")  # fmt: skip
def ruclip(space: Workspace, place: Path) -> None:
    converters.convert("ruclip", GOLDENS / "ruclip", place)


@piece("runs/quickstart/ruclip/model")
def quickstart_ruclip(space: Workspace, place: Path) -> None:
    """Of the sizes of experiments/configs/digits.py, as `table.SMALL` changes them."""
    config = digits_config.train_config().model
    config = dataclasses.replace(
        config,
        vision=dataclasses.replace(config.vision, layers=1, width=16),
        text=dataclasses.replace(config.text, layers=1, width=16),
    )
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: (random.normal(size=leaf.shape) * 0.1).astype(np.float32),
        unstack_layers(clip_params(config)),
    )
    captions = [template.format(name) for template in TEMPLATES for name in NAMES]
    tokenizer = train_tokenizer(captions, config.text.vocab_size)
    PretrainedClip(config, params, tokenizer).save(place)


@piece("models/clip-b16")
def clip_b16(space: Workspace, place: Path) -> None:
    folder = space.get("openai_folder")
    converters.convert(
        "openai-clip", folder / "ViT-B-16.pt", place,
        vocabulary=folder / "bpe_simple_vocab_16e6.txt.gz",
    )  # fmt: skip


@piece("models/ruclip-small")
def ruclip_small(space: Workspace, place: Path) -> None:
    converters.convert("ruclip-small", space.get("ruclip_small_files"), place)


@piece("models/rudolph", "runs/quickstart/rudolph/model", "runs/sberquad/model")
def rudolph(space: Workspace, place: Path) -> None:
    config = RudolphConfig(
        left_text_length=16, image_tokens_per_side=2, right_text_length=8, text_vocab_size=700,
        image_vocab_size=17, width=8, layers=1, heads=2, text_special_tokens=8,
    )  # fmt: skip
    random = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32),
        unstack_layers(abstract_params(config)),
    )
    converters.convert("youtokentome", GOLDENS / "tokenizer", place.with_name("words"))
    tokenizer = clip_jax.load_tokenizer(place.with_name("words"))
    PretrainedRudolph(config, params, tokenizer).save(place)


@piece("models/vqgan", "runs/quickstart/vqgan/model")
def vqgan(space: Workspace, place: Path) -> None:
    config = dataclasses.replace(
        rudolph_jax.VQGAN_PRESETS["tiny"], channels=4, latent_channels=4, codebook_size=17,
        channel_multipliers=(1, 1), norm_groups=2,
    )  # fmt: skip
    params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(0))
    PretrainedVqgan(config, params).save(place)


# What the originals publish


@piece("ruclip_files")
def ruclip_files(space: Workspace, place: Path) -> None:
    place.mkdir()
    for name in ("pytorch_model.bin", "config.json", "bpe.model"):
        shutil.copy(GOLDENS / "ruclip" / name, place)


@piece("training_checkpoint")
def training_checkpoint(space: Workspace, place: Path) -> None:
    """The weights in an entry of the file, as a training program saves an average."""
    ruclip_files(space, place)
    file = place / "pytorch_model.bin"
    tensors = {name: np.array(tensor) for name, tensor in torch_file.read(file).items()}
    file.unlink()
    torch_writer.write(file, tensors, under="model_ema")


@piece("distilled_checkpoint")
def distilled_checkpoint(space: Workspace, place: Path) -> None:
    """The weights below `student.`, and a teacher's beside them."""
    ruclip_files(space, place)
    file = place / "pytorch_model.bin"
    tensors = {name: np.array(tensor) for name, tensor in torch_file.read(file).items()}
    file.unlink()
    both = {f"{owner}.{n}": t for owner in ("student", "teacher") for n, t in tensors.items()}
    torch_writer.write(file, both)


@piece("ruclip_small_files")
def ruclip_small_files(space: Workspace, place: Path) -> None:
    """With a vocabulary, and as many rows of the text table."""
    shutil.copytree(GOLDENS / "ruclip_small", place)
    tokenizer = ByteBpe(*space.byte_vocabulary(RUGPT3))
    for name, content in tokenizer.files.items():
        (place / name).write_bytes(content)
    file = place / "ViT-B32-small.pt"
    tensors = {name: np.array(tensor) for name, tensor in torch_file.read(file).items()}
    rows = np.random.default_rng(0).normal(size=(tokenizer.vocab_size, 64)) * 0.02
    tensors["text_encoder.model.wte.weight"] = rows.astype(np.float32)
    file.unlink()
    torch_writer.write(file, tensors)
    config = json.loads((place / "config.json").read_text())
    config["text"]["vocab_size"] = tokenizer.vocab_size
    (place / "config.json").write_text(json.dumps(config))


@piece("openai_folder")
def openai_folder(space: Workspace, place: Path) -> None:
    """Weights, a config that tells their activation, and a vocabulary of as many rows."""
    place.mkdir()
    vocabulary, merges = space.byte_vocabulary(CLIP)
    openai_checkpoint(place / "ViT-B-16.pt", len(vocabulary))
    towers = {
        "embed_dim": 20,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {
            "context_length": 12, "vocab_size": len(vocabulary), "width": 64, "heads": 1,
            "layers": 1,
        },
    }  # fmt: skip
    (place / "open_clip_config.json").write_text(json.dumps({"model_cfg": towers}))
    text = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)])
    (place / "bpe_simple_vocab_16e6.txt.gz").write_bytes(gzip.compress(text.encode()))


@piece("ViT-B-16.pt")
def torch_script(space: Workspace, place: Path) -> None:
    shutil.copy(GOLDENS / "openai_clip_vit/model.pt", place)


@piece("weights.pt")
def weights(space: Workspace, place: Path) -> None:
    """A state dict alone, which does not tell its activation."""
    tensors = torch_file.read(GOLDENS / "openai_clip_vit/model.pt")
    tensors = {n: np.array(t) for n, t in tensors.items() if t.ndim or n == "logit_scale"}
    torch_writer.write(place, tensors)


@piece("bpe.model")
def bpe(space: Workspace, place: Path) -> None:
    shutil.copy(GOLDENS / "tokenizer/bpe.model", place)


@piece("vqgan.gumbelf8-sber.model.ckpt")
def vqgan_checkpoint(space: Workspace, place: Path) -> None:
    shutil.copy(GOLDENS / "vqgan/vqgan.model.ckpt", place)


@piece("hf_files")
def hf_files(space: Workspace, place: Path) -> None:
    hf_folder(place, space.small_config)


@piece("rudolph_files")
def rudolph_files(space: Workspace, place: Path) -> None:
    shutil.copytree(GOLDENS / "rudolph_v2", place)


@piece("rudalle_files")
def rudalle_files(space: Workspace, place: Path) -> None:
    shutil.copytree(GOLDENS / "rudalle_v3", place)


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
    """As `datasets.Dataset.save_to_disk` leaves it."""
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

    class CocoCaptions(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.1.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2014", version=VERSION)]

        def _info(self):
            captions = tfds.features.Sequence({"id": np.int64, "text": tfds.features.Text()})
            features = {"image": tfds.features.Image(encoding_format="png"), "captions": captions}
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


# Others


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



@piece("runs/cats")
def runs_cats(space: Workspace, place: Path) -> None:
    """A run of 400 steps with averages and a best step."""
    config = digits_config.train_config()
    small = space.small_config
    model = dataclasses.replace(
        small,
        vision=dataclasses.replace(small.vision, image_size=8, layers=1),
        text=dataclasses.replace(small.text, vocab_size=128, layers=1),
    )
    data = dataclasses.replace(
        config.data, directory=str(space.get("runs/data")), split="test", batch_size=8,
        augment=AugmentConfig(),
    )  # fmt: skip
    optim = dataclasses.replace(config.optim, ema=0.9)
    config = dataclasses.replace(
        config, model=model, data=data, optim=optim, steps=400, checkpoint_every=200,
        evaluate_every=200, best_metric="zero-shot:validation/accuracy", log_every=200,
    )  # fmt: skip
    train(config, place, jax.devices()[:1])
