"""Reads folders that commit 9decc08 saved: models, prepared data, a checkpoint to resume from.

`tests/goldens/saved_by_9decc08` was written by that commit: tiny models of random parameters with
their outputs, eight prepared images with captions, and step 2 of a run of four steps with the model
that those four steps made.
"""

import shutil

import jax
import numpy as np
import pytest

import clip_jax
import rudolph_jax
from clip_jax import InputError
from experiments.cli.command_line import parse_command_line
from experiments.train import train

SIZES = {
    "vision": {"image_size": 8, "patch_size": 4, "width": 8, "layers": 1, "heads": 2},
    "text": {"width": 8, "layers": 1, "heads": 2},
}
COMMAND = [
    "--config=experiments/configs/digits.py", "--workdir=saved/run",
    "--config.data.name=saved/data", "--config.steps=4", "--config.checkpoint_every=2",
    "--config.keep_checkpoints=5", "--config.data.batch_size=4", "--config.model.embed_dim=4",
    "--config.model.vision.mlp_width=16", "--config.model.text.mlp_width=16",
    "--config.evaluators=()", "--config.evaluate_every=0",
    *(f"--config.model.{tower}.{key}={value}" for tower, sizes in SIZES.items()
      for key, value in sizes.items()),
]  # fmt: skip


@pytest.fixture
def saved(goldens):
    return goldens / "saved_by_9decc08"


@pytest.fixture
def expected(saved):
    return np.load(saved / "expected.npz")


def test_model_folders_load_and_compute_the_same(saved, expected):
    clip = clip_jax.load(saved / "clip")
    image, text = (
        clip.encode_image(expected["pixel_values"]),
        clip.encode_text(expected["input_ids"]),
    )
    np.testing.assert_allclose(image, expected["image"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(text, expected["text"], rtol=1e-5, atol=1e-6)
    assert clip.config.image.background is None  # as that commit prepared images
    logits = rudolph_jax.load(saved / "rudolph").logits(expected["rudolph_ids"])
    np.testing.assert_allclose(logits, expected["rudolph_logits"], rtol=1e-5, atol=1e-6)
    decoded = rudolph_jax.load_vqgan(saved / "vqgan").decode(expected["codes"])
    np.testing.assert_allclose(decoded, expected["decoded"], rtol=1e-5, atol=1e-6)


def test_a_run_is_resumed_on_its_prepared_data(saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved/run/model")
    monkeypatch.chdir(tmp_path)
    config, workdir = parse_command_line(COMMAND)
    with pytest.raises(InputError, match="image.background = None, not"):
        train(config, workdir, jax.devices()[:1])
    config, workdir = parse_command_line([*COMMAND, "--config.model.image.background=None"])
    found = train(config, workdir, jax.devices()[:1]).model.params
    whole = clip_jax.load(saved / "run/model").params
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
        # Another version's program on another processor: Adam's first steps have the size of the
        # learning rate whatever the gradient's, so a rounded one shows as a share of it.
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-5)
