"""ruCLIP ViT-B/16 at 224 pixels, from the English CLIP with a new table of tokens.

    python -m converters openai-clip ViT-B-16.pt models/clip-vit-base-patch16
    python -m experiments.train --config=experiments/configs/ruclip_vit_base_patch16_224.py \\
        --workdir=runs/ruclip-b16-224 --config.data.name=data/pairs \\
        --config.data.vocabulary=models/ruclip
"""

import dataclasses

from ml_collections import ConfigDict

from clip_jax.config import PRESETS
from experiments.config.run import TrainConfig
from experiments.configs import ruclip_vit_base_patch32_224


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    # Steps, rate and batch are those of patch 32: report; Radford et al. 2021, table 20.
    patch32 = ruclip_vit_base_patch32_224.train_config()
    return dataclasses.replace(
        patch32,
        model=PRESETS["ruclip-vit-base-patch16-224"],
        init=dataclasses.replace(patch32.init, folder="models/clip-vit-base-patch16"),
    )
