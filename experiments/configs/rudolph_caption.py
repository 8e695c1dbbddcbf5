"""RUDOLPH-350M, fine-tuned to caption images.

    python -m experiments.train --config=experiments/configs/rudolph_caption.py \\
        --workdir=runs/caption --config.data.name=data/captions --config.steps=STEPS

STEPS are 5 epochs: 5 x images / 10. Recipe: the captioning notebook of ru-dolph. Its left text
is padding alone; here it is what image-to-text has in pre-training.
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.config.objective import RudolphSettings
from experiments.config.run import InitConfig, MeshConfig, OptimConfig, TrainConfig
from experiments.configs import rudolph_350m
from rudolph_jax.config import PRESETS


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    pretraining = rudolph_350m.train_config()
    return dataclasses.replace(
        pretraining,
        model=PRESETS["350M"],
        init=InitConfig(folder="models/rudolph-350m"),
        settings=RudolphSettings(
            vqgan="models/vqgan-gumbelf8",
            left_weight=0.01, image_weight=1.0, right_weight=7.0,  # original
            text_to_image=0.0, image_to_text=1.0, text_to_text=0.0,
            unknown_token_share=0.0,
        ),
        data=dataclasses.replace(pretraining.data, name="data/captions", batch_size=10),  # original
        # One cycle, its peak and end and the norm's limit: original, as in all its fine-tunes. Rise
        # and first division are its library's defaults, decay that of PyTorch's AdamW; its moments
        # had 8 bits.
        optim=OptimConfig(
            schedule="one_cycle", learning_rate=2e-5, pct_start=0.3, div_factor=25.0,
            final_div_factor=500.0, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.01,
            clip_norm=1.0,
        ),
        mesh=MeshConfig(),
        steps=5000,  # 5 epochs (original) of 10,000 images
        log_every=10,
        checkpoint_every=500,
    )  # fmt: skip
