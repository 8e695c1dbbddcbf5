"""RUDOLPH-350M, fine-tuned to draw what a text says.

    python -m experiments.train --config=experiments/configs/rudolph_draw.py \\
        --workdir=runs/draw --config.data.name=data/captions --config.steps=STEPS
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.config.run import TrainConfig
from experiments.configs import rudolph_caption


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    caption = rudolph_caption.train_config()
    return dataclasses.replace(
        caption,
        settings=dataclasses.replace(
            caption.settings,
            # The generation task of `fusion_train.yaml` of the FBC2 baseline; it has no right text.
            left_weight=1.0, image_weight=7.0, right_weight=0.0,
            text_to_image=1.0, image_to_text=0.0,
        ),
        steps=2000,  # 2 epochs (FBC2 baseline) of 10,000 images
    )  # fmt: skip
