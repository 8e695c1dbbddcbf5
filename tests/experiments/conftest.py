import dataclasses

import pytest

from clip_jax import Compute
from experiments.config import AugmentConfig, DataConfig, OptimConfig, TrainConfig


@pytest.fixture(scope="session")
def data_directory(tmp_path_factory):
    return str(tmp_path_factory.mktemp("data"))


@pytest.fixture
def train_config(small_config, data_directory):
    """Eight steps on the digits that take a second, compilation apart."""
    return TrainConfig(
        model=dataclasses.replace(
            small_config,
            text=dataclasses.replace(small_config.text, vocab_size=128, layers=2),
        ),
        compute=Compute(),
        data=DataConfig(
            directory=data_directory,
            batch_size=16,
            augment=AugmentConfig(scale=(0.9, 1.1), shift=1, recolour=0.5, background=0),
        ),
        optim=OptimConfig(learning_rate=1e-3, warmup_steps=2),
        steps=8,
        log_every=1,
        checkpoint_every=3,
    )
