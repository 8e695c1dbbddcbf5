"""RUDOLPH-2.7B, fine-tuned to answer questions on a text: SberQuAD.

    python -m experiments.prepare sberquad data/sberquad --form=text-questions
    python -m experiments.train --config=experiments/configs/rudolph_sberquad.py \\
        --workdir=runs/sberquad --config.data.name=data/sberquad

Recipe: the text QA notebook of ru-dolph. It wrote answers after RT_UNK and trained them after
RT_TQA; here both are RT_TQA, and a context that is too long is cut, not the question after it.
"""

import dataclasses

from ml_collections import ConfigDict

from experiments.config.run import InitConfig, MeshConfig, TrainConfig
from experiments.configs import rudolph_caption
from rudolph_jax.config import PRESETS


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    caption = rudolph_caption.train_config()
    return dataclasses.replace(
        caption,
        model=PRESETS["2.7B"],
        init=InitConfig(folder="models/rudolph-2.7b"),
        settings=dataclasses.replace(
            caption.settings,
            left_weight=0.01, image_weight=0.01, right_weight=7.0,  # original
            text_to_image=0.0, image_to_text=0.0, text_to_text=0.0,
            question=1.0, question_about="text",
            unknown_token_share=0.0,  # original
        ),
        data=dataclasses.replace(caption.data, name="data/sberquad", batch_size=4),  # original
        # One cycle, as in rudolph_caption.py: original.
        mesh=MeshConfig(data=1, fsdp=-1),
        steps=11_332,  # 1 epoch (original) of 45,328 questions
    )  # fmt: skip
