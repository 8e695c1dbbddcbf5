"""Tiny image tokenizer on emoji in eight drawing styles: 64 codes out of 256 for an image.

    python -m experiments.train --config=experiments/configs/emoji_vqgan.py --workdir=runs/vqgan

Tokens of 4x4 pixels, since 16 tokens of 8x8 would leave little of an image of 32x32.
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
            channel_multipliers=(1, 2, 4),
            residual_blocks=1,
            attention_levels=(),
            latent_channels=32,
            codebook_size=256,
            norm_groups=8,
        ),
        settings=VqganSettings(
            image_size=32,
            temperature_start=1.0,
            temperature_end=0.0625,
            kl_weight=0.0,
            # Without these two the codebook collapses and no colour is learned: docs/emoji.md.
            entropy_weight=0.01,
            initialization="zero_residual",
        ),
        data=DataConfig(
            name="emoji_styles_ru",
            batch_size=32,
            augment=AugmentConfig(variants=1, scale=(0.95, 1.05), shift=1),
        ),
        optim=OptimConfig(
            learning_rate=3e-3, warmup_steps=50, weight_decay=0.0, clip_norm=1.0, end_lr_factor=0.02
        ),
        steps=600,
        checkpoint_every=500,
    )
