"""Codes found when a set is prepared are the ones that training would find."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from clip_jax import InputError
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import RudolphSettings
from experiments.data.code_writer import CodeWriter
from experiments.data.preparation import prepare
from experiments.data.rudolph_examples import RudolphExamples
from experiments.data.source import Split, open_split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.data.vocabulary import train_tokenizer
from rudolph_jax.image_tokenizer import PretrainedVqgan, image_config
from rudolph_jax.layout import Layout

FIVE = WriteConfig(shard_records=5)


@pytest.fixture
def options(tmp_path):
    """Eighteen pictures."""
    source = tmp_path / "source"
    source.mkdir()
    lines = []
    for i in range(18):
        pixels = np.random.default_rng(i).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(source / f"{i}.png")
        lines.append(json.dumps({"image": f"{i}.png", "caption": f"подпись номер {i}"}))
    (source / "list.jsonl").write_text("\n".join(lines))
    return SourceConfig(str(source))


def contents(out):
    return {file.name: file.read_bytes() for file in out.iterdir() if file.name != "prepare.json"}


@pytest.fixture
def coded(options, tmp_path, small_vqgan_folder):
    out = tmp_path / "coded"
    prepare(options, out, FIVE, vqgan=small_vqgan_folder, image_size=8)
    return out


@pytest.fixture
def sequences(coded, small_rudolph_config, small_vqgan_folder, small_vqgan):
    """(changes of the data, of the settings, of the model) -> examples of the coded set."""

    def make(name=coded, vqgan=small_vqgan_folder, model=None, **data):
        config = DataConfig(name=str(name), batch_size=6, **data)
        model = dataclasses.replace(small_rudolph_config, **(model or {}))
        split = open_split(config, "train")
        tokenizer = train_tokenizer([c for row in split for c in row["captions"]], 90)

        def encode(images):
            return np.asarray(small_vqgan.encode(images.astype(np.float32) / 255))

        image = image_config(small_vqgan.config)
        return RudolphExamples(
            split, config, model, RudolphSettings(vqgan), tokenizer, 8, image, encode
        )

    return make


def test_codes_are_those_that_training_would_find(
    sequences, coded, options, tmp_path, small_rudolph_config
):
    prepare(options, tmp_path / "plain", FIVE)
    found = [sequences(), sequences(in_memory=False), sequences(name=tmp_path / "plain")]
    drawn = [
        np.stack([e.sample(i, np.random.default_rng(i))["input_ids"] for i in range(18)])
        for e in found
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_array_equal(drawn[0], drawn[2])
    image = Layout(small_rudolph_config).image
    assert len(np.unique(drawn[0][:, image])) > 4
    assert set(found[1].sample(0, np.random.default_rng(0))) == {"input_ids"}
    row = Split(coded, "train")[2]
    assert row["codes"].dtype == np.int32 and row["codes"].shape == (4,)
    np.testing.assert_array_equal(row["codes"], drawn[0][2, image])


def test_codes_of_another_tokenizer_or_number(sequences, small_vqgan, tmp_path):
    params = {**small_vqgan.params, "codebook": small_vqgan.params["codebook"] + 1}
    other = str(PretrainedVqgan(small_vqgan.config, params).save(tmp_path / "other"))
    with pytest.raises(InputError, match="made with another image tokenizer than"):
        sequences(vqgan=other)
    with pytest.raises(InputError, match="has 4 codes an image .* config.model has room for 9"):
        sequences(model={"image_tokens_per_side": 3})
    with pytest.raises(InputError, match="has the codes of unchanged images"):
        sequences(augment=AugmentConfig(shift=1))


def test_coding_goes_on_where_it_was_stopped(
    options, coded, tmp_path, small_vqgan_folder, monkeypatch
):
    out, made = tmp_path / "out", []
    real = CodeWriter.write

    def write(self, pictures, target, threads):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(pictures.name)
        real(self, pictures, target, threads)

    keywords = {"vqgan": small_vqgan_folder, "image_size": 8}
    with monkeypatch.context() as patch:
        patch.setattr(CodeWriter, "write", write)
        with pytest.raises(KeyboardInterrupt):
            prepare(options, out, FIVE, **keywords)
    with pytest.raises(InputError, match="was begun with codes = "):
        prepare(options, out, FIVE)
    prepare(options, out, FIVE, **keywords)
    assert contents(out) == contents(coded)
    with pytest.raises(InputError, match="--image-size is 9; expected a multiple of 4 pixels"):
        prepare(options, tmp_path / "new", FIVE, vqgan=small_vqgan_folder, image_size=9)
