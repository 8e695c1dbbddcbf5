"""ruCLIP ViT-L/14 at 224 pixels, from scratch: the first stage of the report.

    python -m experiments.train --config=experiments/configs/ruclip_vit_large_patch14_224.py \\
        --workdir=runs/ruclip-l14-224 --config.data.name=data/pairs \\
        --config.data.vocabulary=models/ruclip

`data/pairs` is made by `python -m experiments.prepare`; slices that this fits: `docs/scaling.md`.
The vocabulary is a published model's, or one's own (docs/data.md).
Steps and batch: the ruCLIP report (Shonenkov et al. 2022, arXiv:2202.10784).
"""

from ml_collections import ConfigDict

from clip_jax.config import PRESETS, Compute
from experiments.config.data import DataConfig
from experiments.config.objective import ClipSettings
from experiments.config.run import MeshConfig, OptimConfig, TrainConfig


def get_config() -> ConfigDict:
    return train_config().to_config_dict()


def train_config() -> TrainConfig:
    return TrainConfig(
        model=PRESETS["ruclip-vit-large-patch14-224"],
        # The loss's memory does not grow with the number of devices (docs/losses.md).
        settings=ClipSettings(form="ring"),
        compute=Compute(dtype="bfloat16", remat="block"),
        # Report: 128 pairs on each of 256 GPUs.
        data=DataConfig(name="data/pairs", batch_size=32768, in_memory=False, threads=16),
        # Unpublished. Rate of this size, warm-up, betas, epsilon and decay: Radford et al. 2021,
        # tables 18 to 20.
        optim=OptimConfig(
            learning_rate=4e-4, warmup_steps=2000, beta1=0.9, beta2=0.98, epsilon=1e-6,
            weight_decay=0.2,
        ),
        mesh=MeshConfig(fsdp=8),
        steps=380_000,  # report: 12.5 billion pairs, 52 epochs of 240 million
        log_every=50,
        checkpoint_every=1000,
    )  # fmt: skip
