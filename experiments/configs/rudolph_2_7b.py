"""RUDOLPH-2.7B, pre-training on images and captions.

    python -m experiments.train --config=experiments/configs/rudolph_2_7b.py \\
        --workdir=runs/rudolph-2_7b --config.data.name=data/pairs \\
        --config.data.vocabulary=models/rudolph
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.config.run import TrainConfig
from experiments.configs import rudolph_350m
from rudolph_jax.config import PRESETS


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    small = rudolph_350m.train_config()
    return dataclasses.replace(
        small,
        model=dataclasses.replace(PRESETS["2.7B"], attention_dropout=0.0),
        # Unpublished, as all of rudolph_350m.py; the rate for this size is that of Brown et al.
        # 2020, table 2.1. 2,048 sequences are 2.2 million tokens.
        optim=dataclasses.replace(small.optim, learning_rate=1.6e-4),
        evaluation_images=0,  # drawings need all parameters on one device
    )
