"""Tiny ruCLIP on emoji in two drawing styles.

    python -m experiments.train --config=experiments/configs/emoji.py --workdir=runs/emoji
"""

from ml_collections import ConfigDict

from clip_jax import ClipConfig, Compute, ImageConfig, TextConfig, VisionConfig
from experiments.config import AugmentConfig, DataConfig, OptimConfig, TrainConfig


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    return TrainConfig(
        model=ClipConfig(
            VisionConfig(image_size=48, patch_size=8, width=128, layers=4, heads=4, mlp_width=512),
            TextConfig(
                vocab_size=1500, context_length=20, width=128, layers=2, heads=4, mlp_width=512
            ),
            embed_dim=96,
            image=ImageConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        ),
        compute=Compute(unroll=4),
        data=DataConfig(
            name="emoji_ru",
            batch_size=256,
            augment=AugmentConfig(scales=(0.875, 1.0, 1.125)),
        ),
        optim=OptimConfig(learning_rate=1e-3, warmup_steps=100, weight_decay=0.1),
        steps=400,
        checkpoint_every=100,
    )
