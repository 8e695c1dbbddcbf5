"""Tiny ruCLIP on emoji in eight drawing styles: what another hand's drawings are called.

    python -m experiments.train --config=experiments/configs/emoji.py --workdir=runs/emoji

The set needs archives that `python -m experiments.quickstart --data emoji --download` fetches. With
--config.data.split=train_words, as there, the model learns words for groups of emoji too.

Chosen on the split "validation_drawing"; docs/emoji.md has the trials.
"""

from ml_collections import ConfigDict

from clip_jax import ClipConfig, Compute, ImageConfig, TextConfig, VisionConfig
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import ClipSettings
from experiments.config.run import OptimConfig, TrainConfig


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    return TrainConfig(
        model=ClipConfig(
            VisionConfig(image_size=32, patch_size=8, width=128, layers=3, heads=2, mlp_width=512),
            TextConfig(
                vocab_size=1000, context_length=24, width=64, layers=1, heads=1, mlp_width=256
            ),
            embed_dim=128,
            # The training images' own statistics.
            image=ImageConfig(mean=(0.8, 0.77, 0.72), std=(0.3, 0.3, 0.34)),
        ),
        # A word for a group stands under many images of a batch.
        settings=ClipSettings(duplicates="positives"),
        compute=Compute(unroll=3),
        data=DataConfig(
            name="emoji_styles_ru",
            batch_size=256,
            # A name without a FxEmoji image would only ever be a wrong answer to FxEmoji
            # images, and the model would learn to avoid it: one style a batch.
            group_by="style",
            augment=AugmentConfig(
                variants=6,
                scale=(0.9, 1.05),
                aspect=0.06,
                rotation=4.0,
                outline=0.3,
                lines=0.3,
                blur=0.15,
                shift=2,
                recolour=0.6,
                hue=0.2,
                grey=0.08,
            ),
        ),
        optim=OptimConfig(
            learning_rate=1.5e-3,
            warmup_steps=60,
            weight_decay=0.1,
            clip_norm=1.0,
            end_lr_factor=0.01,
        ),
        steps=3000,
        checkpoint_every=500,
        evaluate_every=500,
        evaluators=("retrieval:validation_drawing",),
    )
