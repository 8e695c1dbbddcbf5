"""Tiny RUDOLPH on emoji in eight drawing styles, over the codes of `emoji_vqgan.py`.

    python -m experiments.train --config=experiments/configs/emoji_rudolph.py \\
        --workdir=runs/rudolph --config.settings.vqgan=runs/vqgan/model
"""

from ml_collections import ConfigDict

from clip_jax import Compute
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import RudolphSettings
from experiments.config.run import OptimConfig, TrainConfig
from rudolph_jax.config import RudolphConfig


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    return TrainConfig(
        objective="rudolph",
        model=RudolphConfig(
            left_text_length=14,
            image_tokens_per_side=8,
            right_text_length=14,
            text_vocab_size=1000,
            image_vocab_size=256,
            width=160,
            layers=4,
            heads=5,
            text_special_tokens=6,
            kernel_size=5,
            last_kernel_size=5,
            attention_dropout=0.0,
            output_dropout=0.1,
        ),
        # A prompt is given, so that predicting it matters little; a caption must be predicted.
        settings=RudolphSettings(
            left_weight=0.3,
            image_weight=3.0,
            right_weight=3.0,
            text_to_image=0.5,
            image_to_text=0.5,
            text_to_text=0.0,
        ),
        compute=Compute(unroll=4),
        data=DataConfig(
            name="emoji_styles_ru",
            batch_size=32,
            augment=AugmentConfig(variants=2, scale=(0.95, 1.05)),
        ),
        optim=OptimConfig(
            learning_rate=1.5e-3,
            warmup_steps=50,
            weight_decay=0.1,
            clip_norm=1.0,
            end_lr_factor=0.02,
        ),
        steps=1200,
        checkpoint_every=500,
    )
