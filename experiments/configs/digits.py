"""Tiny ruCLIP on the handwritten digits: the quickstart's default, two minutes on two cores.

python -m experiments.train --config=experiments/configs/digits.py --workdir=runs/digits
"""

from ml_collections import ConfigDict

from clip_jax import Compute
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.run import OptimConfig, TrainConfig


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    return TrainConfig(
        compute=Compute(unroll=3),  # a third faster than the loop on a CPU
        data=DataConfig(
            name="digits_ru",
            batch_size=128,
            augment=AugmentConfig(
                variants=8, scale=(0.85, 1.15), rotation=10.0, shift=2, recolour=0.5, background=0
            ),
        ),
        optim=OptimConfig(learning_rate=1e-3, warmup_steps=50, weight_decay=0.1),
        steps=450,
        checkpoint_every=100,
        evaluate_every=100,
        evaluators=("zero-shot:validation",),
    )
