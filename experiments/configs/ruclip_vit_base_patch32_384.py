"""ruCLIP ViT-B/32 at 384 pixels, on from the model at 224.

    python -m experiments.train --config=experiments/configs/ruclip_vit_base_patch32_384.py \\
        --workdir=runs/ruclip-b32-384 --config.init.folder=runs/ruclip-b32-224/model
"""

import dataclasses

from ml_collections import ConfigDict

from clip_jax.config import PRESETS
from experiments.config.run import InitConfig, TrainConfig
from experiments.configs import ruclip_vit_base_patch32_224


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    first = ruclip_vit_base_patch32_224.train_config()
    return dataclasses.replace(
        first,
        model=PRESETS["ruclip-vit-base-patch32-384"],
        init=InitConfig(folder="models/ruclip-vit-base-patch32-224"),
        # Unpublished. The rate of CLIP's stage of larger images: Radford et al. 2021, table 20.
        optim=dataclasses.replace(first.optim, learning_rate=2e-5),
        steps=20_000,  # report: 2.7 epochs of 240 million pairs
    )
