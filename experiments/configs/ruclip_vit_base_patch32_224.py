"""ruCLIP ViT-B/32 at 224 pixels, from the English CLIP with a new table of tokens.

    python -m converters openai-clip ViT-B-32.pt models/clip-vit-base-patch32
    python -m experiments.train --config=experiments/configs/ruclip_vit_base_patch32_224.py \\
        --workdir=runs/ruclip-b32-224 --config.data.name=data/pairs \\
        --config.data.vocabulary=models/ruclip
"""

import dataclasses

from ml_collections import ConfigDict

from clip_jax.config import PRESETS
from experiments.config.run import InitConfig, MeshConfig, TrainConfig
from experiments.configs import ruclip_vit_large_patch14_224


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    large = ruclip_vit_large_patch14_224.train_config()
    return dataclasses.replace(
        large,
        model=PRESETS["ruclip-vit-base-patch32-224"],
        # Report: from the English model. A fresh token table is inferred: the BPE is new.
        init=InitConfig(
            folder="models/clip-vit-base-patch32", reinitialize=("text/token_embedding",)
        ),
        # Unpublished. The rate of this size: Radford et al. 2021, table 20.
        optim=dataclasses.replace(large.optim, learning_rate=5e-4),
        mesh=MeshConfig(),  # 2.4 GB of parameters, moments and gradients: no need to split them
        steps=140_000,  # report: 19 epochs of 240 million pairs
    )
