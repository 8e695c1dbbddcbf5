"""ruCLIP ViT-L/14 at 336 pixels, on from the model at 224.

    python -m experiments.train --config=experiments/configs/ruclip_vit_large_patch14_336.py \\
        --workdir=runs/ruclip-l14-336 --config.init.folder=runs/ruclip-l14-224/model
"""

import dataclasses

from ml_collections import ConfigDict

from clip_jax.config import PRESETS
from experiments.config.run import InitConfig, TrainConfig
from experiments.configs import ruclip_vit_large_patch14_224


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    first = ruclip_vit_large_patch14_224.train_config()
    return dataclasses.replace(
        first,
        model=PRESETS["ruclip-vit-large-patch14-336"],
        init=InitConfig(folder="models/ruclip-vit-large-patch14-224"),
        # Unpublished. The rate of CLIP's own 336 stage: Radford et al. 2021, table 20.
        optim=dataclasses.replace(first.optim, learning_rate=2e-5),
        steps=15_000,  # report
    )
