"""Tiny image tokenizer on the handwritten digits: 16 codes out of 32 for an image.

    python -m experiments.train --config=experiments/configs/digits_vqgan.py --workdir=runs/vqgan

The digits have 8x8 pixels of their own: at 16x16, tokens of 4x4 pixels lose nothing that the
published models' 8x8 pixels would keep, and a step costs a fraction.
"""

from ml_collections import ConfigDict

from clip_jax.config import WHITE
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import VqganSettings
from experiments.config.run import OptimConfig, TrainConfig
from rudolph_jax.config import VqganConfig


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    return TrainConfig(
        objective="vqgan",
        model=VqganConfig(
            background=WHITE,
            channels=16,
            channel_multipliers=(1, 1, 2),
            residual_blocks=1,
            attention_levels=(),
            latent_channels=32,
            codebook_size=32,
            norm_groups=8,
        ),
        settings=VqganSettings(
            image_size=16, temperature_start=1.0, temperature_end=0.0625, kl_weight=0.0
        ),
        data=DataConfig(
            name="digits_ru",
            batch_size=32,
            augment=AugmentConfig(background=0),
        ),
        optim=OptimConfig(
            learning_rate=3e-3, warmup_steps=50, weight_decay=0.0, clip_norm=1.0, end_lr_factor=0.02
        ),
        steps=700,
        checkpoint_every=200,
    )
