"""Tiny RUDOLPH on the handwritten digits, over the codes of `digits_vqgan.py`.

    python -m experiments.train --config=experiments/configs/digits_rudolph.py \\
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
            left_text_length=8,
            image_tokens_per_side=4,
            right_text_length=8,
            text_vocab_size=100,
            image_vocab_size=32,
            width=96,
            layers=4,
            heads=3,
            text_special_tokens=6,
            kernel_size=3,
            last_kernel_size=3,
            # 1,400 images, each augmented a few times: enough to learn from without dropout.
            attention_dropout=0.0,
            output_dropout=0.0,
        ),
        settings=RudolphSettings(image_weight=3.0, unknown_token_share=0.1),
        compute=Compute(unroll=4),
        data=DataConfig(
            name="digits_ru",
            batch_size=64,
            augment=AugmentConfig(variants=4, scale=(0.95, 1.05), rotation=4.0, background=0),
        ),
        optim=OptimConfig(
            learning_rate=2e-3, warmup_steps=50, weight_decay=0.1, clip_norm=1.0, end_lr_factor=0.02
        ),
        steps=700,
        checkpoint_every=200,
    )
