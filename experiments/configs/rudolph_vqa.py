"""RUDOLPH-2.7B, fine-tuned to answer questions on images.

    python -m experiments.prepare images data/vqa --form=image-questions
    python -m experiments.train --config=experiments/configs/rudolph_vqa.py \\
        --workdir=runs/vqa --config.data.name=data/vqa --config.steps=STEPS

STEPS are 2 epochs: 2 x questions / 4. Recipe: the task vqa of the FBC2 baseline, which trains six
tasks together; its last version's model and batch.
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.config.run import TrainConfig
from experiments.configs import rudolph_sberquad


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    sberquad = rudolph_sberquad.train_config()
    return dataclasses.replace(
        sberquad,
        settings=dataclasses.replace(
            sberquad.settings,
            left_weight=1.0, image_weight=1.0, right_weight=7.0,  # `fusion_train.yaml`
            question_about="image",
            unknown_token_share=0.25,  # `dataloader.py`, which draws left and right apart
        ),
        # Batch 2 on each of 2 GPUs: `fusion_train.yaml`.
        data=dataclasses.replace(sberquad.data, name="data/vqa", batch_size=4),
        steps=5000,  # 2 epochs (`fusion_train.yaml`) of 10,000 questions
    )  # fmt: skip
