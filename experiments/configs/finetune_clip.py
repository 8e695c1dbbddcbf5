"""Fine-tunes any ruCLIP or CLIP on a few hundred to some ten thousand images of one's own.

    python -m experiments.prepare photos data/mine --validation=0.15 --background=white
    python -m experiments.train --config=experiments/configs/finetune_clip.py:MODEL \\
        --workdir=runs/mine --config.data.name=data/mine

MODEL is a model folder, converted or trained. The config takes the architecture from it. Ends when
retrieval on the split "validation" gets no better; docs/fine_tuning.md has the measurements behind
the values.
"""

from ml_collections import ConfigDict

from clip_jax import ClipConfig
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import ClipSettings
from experiments.config.optimizer import OptimConfig
from experiments.config.run import InitConfig, TrainConfig
from experiments.configs.model_argument import read_model_config


def get_config(model: str = "") -> ConfigDict:
    return train_config(model).to_config_dict()


def train_config(model: str = "") -> TrainConfig:
    config = ClipConfig.from_dict(read_model_config(model, "finetune_clip", "clip"))
    return TrainConfig(
        model=config,
        settings=ClipSettings(duplicates="masked"),  # captions of one's own often repeat
        init=InitConfig(folder=model),
        data=DataConfig(
            name="data/mine",
            batch_size=64,
            in_memory=False,
            threads=4,
            augment=AugmentConfig(
                scale=(0.9, 1.1),
                rotation=5.0,
                shift=config.vision.image_size // 16,
                recolour=0.3,
                grey=0.05,
            ),
        ),
        optim=OptimConfig(
            learning_rate=1e-4,
            warmup_steps=20,
            weight_decay=0.05,
            clip_norm=1.0,
            layer_decay=0.9,
        ),
        steps=600,
        checkpoint_every=20,
        evaluate_every=20,
        evaluators=("retrieval:validation",),
        best_metric="retrieval:validation/mean_recall",
        early_stop=6,
        final_model="best",
    )
