"""RUDOLPH-350M, pre-training on images and captions.

    python -m experiments.train --config=experiments/configs/rudolph_350m.py \\
        --workdir=runs/rudolph-350m --config.data.name=data/pairs \\
        --config.data.vocabulary=models/rudolph

Sets prepared with `--vqgan` have their codes already (docs/data.md); slices that this fits:
`docs/scaling.md`. The vocabulary is a published model's, or one's own (docs/data.md). Everything
but the model, the share of unknown task tokens and the loss weights is unpublished.
"""

import dataclasses

from ml_collections import ConfigDict

from clip_jax import Compute
from experiments.config.data import DataConfig
from experiments.config.objective import RudolphSettings
from experiments.config.run import MeshConfig, OptimConfig, TrainConfig
from rudolph_jax.config import PRESETS


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    return TrainConfig(
        objective="rudolph",
        # Attention weights are not dropped, unlike in the original: one pass over the data has
        # little to overfit, drawing the masks takes a third of a step, and kernels of attention
        # have no dropout. Outputs are dropped as in the original, and so do the fine-tunes both.
        model=dataclasses.replace(PRESETS["350M"], attention_dropout=0.0),
        settings=RudolphSettings(
            vqgan="models/vqgan-gumbelf8",
            # The original's default of its loss.
            left_weight=1.0, image_weight=7.0, right_weight=1.0,
            unknown_token_share=0.3,  # original: README of ru-dolph
        ),
        # "dots" runs no product twice: 1.3B on 256 v5e chips takes 856 ms in place of 937 by the
        # compiler's cycles (docs/scaling.md). "block" needs the least memory.
        compute=Compute(dtype="bfloat16", remat="dots"),
        # Unpublished: 0.8 million tokens a step, between GPT-3's 0.5 for this size and 1 for 1.3B
        # (Brown et al. 2020, table 2.1).
        data=DataConfig(name="data/pairs", batch_size=2048, in_memory=False, threads=16),
        # Unpublished. Rate and betas: Brown et al. 2020, table 2.1 and appendix B; the norm's limit
        # is that of the published fine-tunes.
        optim=OptimConfig(
            learning_rate=3e-4, warmup_steps=2000, end_lr_factor=0.1,
            beta1=0.9, beta2=0.95, epsilon=1e-8,
            weight_decay=0.1, clip_norm=1.0,
        ),
        mesh=MeshConfig(fsdp=8),  # 32 on 256 devices and more: docs/scaling.md
        steps=200_000,  # unpublished
        log_every=50,
        checkpoint_every=1000,
    )  # fmt: skip
