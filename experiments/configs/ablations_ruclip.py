"""Ablates ruCLIP's recipe on the handwritten digits; the table is in docs/ablations.md.

    python -m experiments.sweep --config=experiments/configs/ablations_ruclip.py \\
        --workdir=runs/ablations-ruclip

Every variant sees 12,800 pairs, nine times each image; no learning rate was tuned for any. The
model is smaller than the quickstart's and images are only shifted, so that all takes minutes.
"""

from typing import Any

from ml_collections import ConfigDict

from clip_jax import ClipConfig, Compute, ImageConfig, TextConfig, VisionConfig
from experiments.config.data import AugmentConfig, DataConfig
from experiments.config.run import OptimConfig, TrainConfig

PAIRS, BATCH, WARM_UP = 12_800, 64, 0.15


def get_config() -> ConfigDict:
    return TrainConfig(
        model=ClipConfig(
            VisionConfig(image_size=16, patch_size=8, width=64, layers=2, heads=2, mlp_width=256),
            TextConfig(
                vocab_size=256, context_length=12, width=32, layers=1, heads=1, mlp_width=128
            ),
            embed_dim=32,
            image=ImageConfig(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        ),
        compute=Compute(unroll=2),
        data=DataConfig(
            name="digits_ru", batch_size=BATCH, augment=AugmentConfig(shift=1, background=0)
        ),
        optim=OptimConfig(
            learning_rate=2e-3, warmup_steps=round(WARM_UP * PAIRS / BATCH), weight_decay=0.1
        ),
        steps=PAIRS // BATCH,
        log_every=5,
        checkpoint_every=0,
        evaluators=("zero-shot:validation",),
        evaluation_images=0,
    ).to_config_dict()


def get_sweep() -> dict[str, dict[str, Any]]:
    return {
        "base": {},
        "ring": {"settings.form": "ring"},
        "sigmoid": {"model.logit_bias": True},
        "batch 32": of_batch(32),
        "batch 128": of_batch(128),
        "batch 256": of_batch(256),
        "fixed temperature": {"optim.freeze": ("logit_scale",)},
        # A shift keeps its share of the image.
        "32 pixels": {"model.vision.image_size": 32, "data.augment.shift": 2},
        "patches of 4": {"model.vision.patch_size": 4},
        "duplicates positive": {"settings.duplicates": "positives"},
        "duplicates masked": {"settings.duplicates": "masked"},
        "patch dropout 0.5": {"settings.patch_dropout": 0.5},
    }  # fmt: skip


def of_batch(size: int) -> dict[str, Any]:
    steps = PAIRS // size
    return {
        "data.batch_size": size,
        "steps": steps,
        "optim.warmup_steps": round(WARM_UP * steps),
        "log_every": max(5 * BATCH // size, 1),
    }
