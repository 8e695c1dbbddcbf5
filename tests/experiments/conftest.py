"""Small runs and models; makes `label_sources.py` importable, as importlib mode does not."""

import dataclasses
import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import converters
from clip_jax import Compute
from clip_jax.layers import unstack_layers
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import RudolphSettings, VqganSettings
from experiments.config.run import OptimConfig, TrainConfig
from experiments.data.digits_ru import NAMES, TEMPLATES
from experiments.data.vocabulary import train_tokenizer
from rudolph_jax.config import RudolphConfig, VqganConfig
from rudolph_jax.image_tokenizer import PretrainedVqgan
from rudolph_jax.layout import Layout
from rudolph_jax.model import Rudolph
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.vqgan import Vqgan

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="module")
def store():
    """The emulator of buckets, which all clients of this process and its children talk to."""
    from gcs_emulator import serving

    with serving() as store:
        before = dict(os.environ)
        os.environ.update(store.environment)
        yield store
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def ruclip(goldens, tmp_path_factory):
    """The folder of a tiny ruCLIP that the original made."""
    folder = tmp_path_factory.mktemp("models") / "ruclip"
    converters.convert("ruclip", goldens / "ruclip", folder)
    return folder


@pytest.fixture
def train_config(small_config, data_directory):
    """Eight steps on few of the digits: they take a second, compilation apart."""
    return TrainConfig(
        model=dataclasses.replace(
            small_config,
            text=dataclasses.replace(small_config.text, vocab_size=128, layers=2),
        ),
        compute=Compute(),
        data=DataConfig(
            directory=data_directory,
            split="test",  # an eighth of "train", which each run reads as a whole
            batch_size=16,
            augment=AugmentConfig(scale=(0.9, 1.1), shift=1, recolour=0.5, background=0),
        ),
        optim=OptimConfig(learning_rate=1e-3, warmup_steps=2),
        steps=8,
        log_every=1,
        checkpoint_every=3,
    )


@pytest.fixture(scope="session")
def small_vqgan_config():
    """Pictures of 8x8 pixels are 2x2 codes."""
    return VqganConfig(
        channels=4,
        channel_multipliers=(1, 2, 2),
        residual_blocks=1,
        attention_levels=(),
        latent_channels=6,
        codebook_size=24,
        norm_groups=2,
    )


@pytest.fixture(scope="session")
def small_vqgan(small_vqgan_config):
    """Untrained; images get various codes all the same."""
    vqgan = Vqgan(small_vqgan_config)
    params = jax.jit(vqgan.init)(jax.random.key(3), jnp.zeros((1, 8, 8, 3)))["params"]
    params["code_head"]["kernel"] *= 30
    return PretrainedVqgan(small_vqgan_config, params)


@pytest.fixture(scope="session")
def small_vqgan_folder(small_vqgan, tmp_path_factory):
    return str(small_vqgan.save(tmp_path_factory.mktemp("tokenizer") / "vqgan"))


@pytest.fixture(scope="session")
def small_rudolph_config():
    return RudolphConfig(
        left_text_length=10,
        image_tokens_per_side=2,
        right_text_length=12,
        text_vocab_size=94,
        image_vocab_size=24,
        width=16,
        layers=2,
        heads=2,
        text_special_tokens=8,
        kernel_size=3,
        last_kernel_size=3,
    )


@pytest.fixture(scope="session")
def small_rudolph(small_rudolph_config, small_vqgan):
    """Untrained, about digits."""
    ids = jnp.zeros((1, Layout(small_rudolph_config).sequence_length), jnp.int32)
    params = jax.jit(Rudolph(small_rudolph_config).init)(jax.random.key(1), ids)["params"]
    captions = [template.format(name) for template in TEMPLATES for name in NAMES]
    tokenizer = train_tokenizer(captions, small_rudolph_config.text_vocab_size)
    return PretrainedRudolph(small_rudolph_config, unstack_layers(params), tokenizer, small_vqgan)


@pytest.fixture
def vqgan_train_config(train_config, small_vqgan_config):
    return dataclasses.replace(
        train_config,
        objective="vqgan",
        model=small_vqgan_config,
        settings=VqganSettings(image_size=8),
        steps=4,
        checkpoint_every=2,
        evaluators=("reconstruction:validation",),
    )


@pytest.fixture
def rudolph_train_config(train_config, small_rudolph_config, small_vqgan_folder):
    return dataclasses.replace(
        train_config,
        objective="rudolph",
        model=small_rudolph_config,
        settings=RudolphSettings(vqgan=small_vqgan_folder),
        steps=4,
        checkpoint_every=2,
        evaluators=("losses:validation",),
        evaluation_images=3,
    )
