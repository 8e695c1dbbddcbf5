"""Fine-tunes any RUDOLPH on a few hundred to some ten thousand images with captions of one's own.

    python -m experiments.prepare photos data/mine --validation=0.15 --background=white
    python -m experiments.train --config=experiments/configs/finetune_rudolph.py:MODEL \\
        --workdir=runs/mine --config.data.name=data/mine --config.settings.vqgan=VQGAN

MODEL and VQGAN are model folders, converted or trained. Low-rank updates alone are trained, which
leaves the optimiser a hundredth of the memory; it ends when the losses on the split "validation"
get no better. One model learns to draw and to caption; rudolph_caption.py and rudolph_draw.py have
the original's recipes for one of the two.
"""

from ml_collections import ConfigDict

from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.objective import RudolphSettings
from experiments.config.optimizer import LoraConfig, OptimConfig
from experiments.config.run import InitConfig, TrainConfig
from experiments.configs.model_argument import read_model_config
from rudolph_jax.config import RudolphConfig


def get_config(model: str = "") -> ConfigDict:
    return train_config(model).to_config_dict()


def train_config(model: str = "") -> TrainConfig:
    return TrainConfig(
        objective="rudolph",
        model=RudolphConfig.from_dict(read_model_config(model, "finetune_rudolph", "rudolph")),
        init=InitConfig(folder=model),
        settings=RudolphSettings(
            vqgan="models/vqgan-gumbelf8",
            image_weight=1.0,
            text_to_image=0.5,
            image_to_text=0.5,
            text_to_text=0.0,
            unknown_token_share=0.0,
        ),
        data=DataConfig(
            name="data/mine",
            batch_size=16,
            augment=AugmentConfig(variants=4, scale=(0.95, 1.05)),
        ),
        optim=OptimConfig(
            learning_rate=1e-3,
            warmup_steps=20,
            weight_decay=0.0,
            clip_norm=1.0,
            lora=LoraConfig(rank=8, alpha=16.0, kernels=(r".*(attention|mlp)/.*_kernel",)),
        ),
        steps=600,
        checkpoint_every=20,
        evaluate_every=20,
        evaluators=("losses:validation",),
        best_metric="losses:validation/mean_loss",
        best_mode="lowest",
        early_stop=6,
        final_model="best",
    )
