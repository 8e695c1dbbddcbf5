"""The one loop with RUDOLPH and its image tokenizer: metrics, model folders, resuming."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from clip_jax.layers import unstack_layers
from experiments import train as train_module
from experiments.evaluation.during_training.images import make_drawings
from experiments.train import train
from experiments.training.checkpoint import Checkpoints
from experiments.training.metrics import read_metrics
from rudolph_jax import pretrained
from rudolph_jax.image_tokenizer import load_vqgan

ONE = jax.devices()[:1]


def assert_bit_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed, made once a module."""
    runs = {}

    def run(config):
        if config not in runs:
            folder = tmp_path_factory.mktemp("finished")
            runs[config] = (train(config, folder, ONE), folder)
        return runs[config]

    return run


def test_a_vqgan_run_leaves_a_loadable_tokenizer(finished, vqgan_train_config, rng):
    run, folder = finished(vqgan_train_config)
    rows = [row for row in read_metrics(folder) if "train/loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(math.isfinite(row["train/reconstruction_loss"]) for row in rows)
    temperatures = [row["train/temperature"] for row in rows]
    assert temperatures[0] == 1.0 and temperatures == sorted(temperatures, reverse=True)
    assert 0 < run.metrics["reconstruction:validation/codebook_usage"] <= 1
    assert not (folder / "tokenizer.model").exists()
    loaded = load_vqgan(run.model_folder)
    assert loaded.config == vqgan_train_config.model
    pictures = rng.random((3, 8, 8, 3), np.float32)
    codes = loaded.encode(pictures)
    assert_bit_equal(codes, run.model.encode(pictures))
    assert_bit_equal(loaded.decode(codes), run.model.decode(codes))


def test_a_rudolph_run_leaves_a_loadable_model(finished, rudolph_train_config, rng):
    run, folder = finished(rudolph_train_config)
    rows = [row for row in read_metrics(folder) if "train/loss" in row]
    parts = ("left_text_loss", "image_loss", "right_text_loss")
    for row in rows:
        weighted = [w * row[f"train/{part}"] for w, part in zip((1, 7, 1), parts, strict=True)]
        assert row["train/loss"] == pytest.approx(sum(weighted) / 9, rel=1e-5)
    assert run.metrics["losses:validation/image_loss"] > 0
    assert (folder / "tokenizer.model").exists()
    (sheet,) = (folder / "images" / "drawings").iterdir()
    assert sheet.name == "00000004.png"
    assert sheet.read_bytes() == make_drawings(rudolph_train_config)(run.model)
    loaded = pretrained.load(run.model_folder, vqgan=rudolph_train_config.settings.vqgan)
    assert loaded.config == rudolph_train_config.model
    ids = rng.integers(0, 24, (2, 26))
    assert_bit_equal(loaded.params, run.model.params)
    # Two programs: a loaded model's kernels are transposed, so products sum in another order.
    np.testing.assert_allclose(loaded.logits(ids), run.model.logits(ids), atol=5e-5)
    assert loaded.tokenizer.encode("цифра семь") == run.model.tokenizer.encode("цифра семь")


@pytest.mark.slow  # the loop is the same for all objectives, and test_train.py interrupts it
@pytest.mark.parametrize("name", ["vqgan", "rudolph"])
def test_interrupted_run_resumes_bit_equal(
    name, finished, vqgan_train_config, rudolph_train_config, tmp_path, monkeypatch
):
    config = {"vqgan": vqgan_train_config, "rudolph": rudolph_train_config}[name]
    expected, folder = finished(config)
    real = train_module.partitioning.put_batch
    calls = []

    def interrupt_at_fourth(batch, mesh):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(batch, mesh)

    with monkeypatch.context() as patch:
        patch.setattr(train_module.partitioning, "put_batch", interrupt_at_fourth)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path, ONE)
    resumed = train(config, tmp_path, ONE)
    assert_bit_equal(resumed.model.params, expected.model.params)
    assert read_metrics(tmp_path) == read_metrics(folder)


def test_pictures_encoded_batch_by_batch_train_too(rudolph_train_config, tmp_path):
    data = dataclasses.replace(rudolph_train_config.data, in_memory=False)
    config = dataclasses.replace(rudolph_train_config, data=data, steps=2, evaluators=())
    run = train(config, tmp_path, ONE)
    assert math.isfinite(run.metrics["train/image_loss"])
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.read_config(2)["settings"]["vqgan"] == config.settings.vqgan


def test_layers_of_the_model_lie_one_by_one(finished, rudolph_train_config):
    run, _ = finished(rudolph_train_config)
    assert set(run.model.params["layers"]) == {"0", "1"}
    shapes = jax.tree.map(np.shape, run.model.params)
    wanted = unstack_layers(pretrained.abstract_params(rudolph_train_config.model))
    assert shapes == jax.tree.map(lambda x: x.shape, wanted)
