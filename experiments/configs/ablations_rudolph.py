"""Ablates RUDOLPH's recipe on the handwritten digits; the table is in docs/ablations.md.

    python -m experiments.sweep --config=experiments/configs/ablations_rudolph.py \\
        --workdir=runs/ablations-rudolph

All variants read the codes of one image tokenizer, trained before. ruDALL-E's order of masks is
left out: with four layers it is RUDOLPH's.
"""

import dataclasses
from typing import Any

from ml_collections import ConfigDict

from experiments.config.data import AugmentConfig
from experiments.config.run import TrainConfig
from experiments.configs import digits_rudolph, digits_vqgan


def get_config() -> ConfigDict:
    base = digits_rudolph.train_config()
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, width=48),
        data=dataclasses.replace(
            base.data, batch_size=32, augment=AugmentConfig(shift=1, background=0)
        ),
        optim=dataclasses.replace(base.optim, warmup_steps=20),
        steps=150,
        log_every=5,
        checkpoint_every=0,
        evaluators=("losses:validation",),
        evaluation_images=0,
    ).to_config_dict()


def get_prerequisites() -> dict[str, TrainConfig]:
    vqgan = dataclasses.replace(digits_vqgan.train_config(), steps=300, checkpoint_every=0)
    return {"settings.vqgan": vqgan}


def get_sweep() -> dict[str, dict[str, Any]]:
    return {
        "base": {},
        **{f"{kind} masks": {"model.mask_order": kind} for kind in
           ("causal", "row", "column", "conv")},
        "no sandwich norm": {"model.sandwich_norm": False},
        "no PB-relax": {"model.pb_relax": False},
        "image weight 1": {"settings.image_weight": 1.0},
        "image weight 7": {"settings.image_weight": 7.0},
    }  # fmt: skip
