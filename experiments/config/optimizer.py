"""Optimiser, schedule and trainable parameters of a run: frozen plain data."""

from __future__ import annotations

import dataclasses
import re
from typing import Annotated

from msgspec import Meta

from clip_jax.errors import InputError
from experiments.config.data import expect
from experiments.config.extensions import NO_EXTENSIONS, Extensions

OPTIMIZERS = ("adamw", "adafactor", "lion")
SCHEDULES = ("cosine", "one_cycle", "rsqrt", "constant")
MOMENT_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank updates of chosen kernels, all else frozen (Hu et al. 2021); rank 0: off.

    alpha: the update counts alpha / rank times. kernels: patterns of whole parameter names.
    train: patterns of what is trained besides, such as a head or "logit_scale".
    """

    rank: Annotated[int, Meta(ge=0, le=1 << 16)] = 0
    alpha: float = 16.0
    kernels: tuple[str, ...] = (r".*attention/(qkv|out)_kernel",)
    train: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """optimizer: "adamw", "adafactor" (factored second moments, no first) or "lion".
    schedule: all warm up linearly from 0 over `warmup_steps`, except for "one_cycle".
        "cosine" falls to `end_lr_factor` times the peak rate at the last step; "rsqrt" falls with
        the square root of the steps, and linearly to 0 over the last `cooldown_steps`; "constant"
        stays. "one_cycle" (PyTorch's OneCycleLR) rises from learning_rate / `div_factor` over
        `pct_start` of all steps and falls to that divided by `final_div_factor`, both along half a
        cosine.
    weight_decay: of matrices and tables, not of biases, gains and single vectors.
    clip_norm: largest global gradient norm; 0 turns clipping off.
    moment_dtype: of the first moment; "bfloat16" halves its memory.
    master_weights: computes a step with bfloat16 copies of the matrices and tables, whose gradients
        are bfloat16 too; parameters, moments and what is saved stay float32. Needs
        `compute.dtype` bfloat16.
    layer_decay: each layer's rate is this times that of the layer above; 1 turns it off.
    freeze: patterns of parameter names that are not trained. In a name a layer has its number:
        "visual/.*" is the image tower, "text/layers/[0-5]/.*" six layers.
    ema: decay of the moving average of the parameters, which is then evaluated and saved as
        the model; 0 turns it off.
    skip_nonfinite: how many steps in a row may be left out because their gradient is infinite or
        NaN; with one more the run ends.
    """

    optimizer: str = "adamw"
    schedule: str = "cosine"
    learning_rate: float = 5e-4
    warmup_steps: int = 2000
    cooldown_steps: int = 0
    end_lr_factor: float = 0.0
    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.2
    clip_norm: float = 0.0
    moment_dtype: str = "float32"
    master_weights: bool = False
    layer_decay: float = 1.0
    freeze: tuple[str, ...] = ()
    lora: LoraConfig = LoraConfig()
    ema: float = 0.0
    skip_nonfinite: int = 0


def check_optim(optim: OptimConfig, extensions: Extensions = NO_EXTENSIONS) -> None:
    """Values that no run could use raise InputError. extensions: own optimisers and schedules."""

    def good(name: str, holds: bool, wish: str) -> None:
        expect(holds, f"optim.{name}", getattr(optim, name), wish)

    for name, choices in (
        ("optimizer", (*OPTIMIZERS, *extensions.optimizers)),
        ("schedule", (*SCHEDULES, *extensions.schedules)),
        ("moment_dtype", MOMENT_DTYPES),
    ):
        good(name, getattr(optim, name) in choices, "one of " + ", ".join(choices))
    good("learning_rate", optim.learning_rate > 0, "above 0")
    for name in ("warmup_steps", "cooldown_steps", "skip_nonfinite"):
        good(name, getattr(optim, name) >= 0, "0 or more")
    good("end_lr_factor", 0 <= optim.end_lr_factor <= 1, "0 to 1")
    good("pct_start", 0 < optim.pct_start < 1, "a share of the steps, between 0 and 1")
    good("div_factor", optim.div_factor >= 1, "1 or above")
    good("final_div_factor", optim.final_div_factor >= 1, "1 or above")
    good("clip_norm", optim.clip_norm >= 0, "0 (off) or above")
    good("layer_decay", 0 < optim.layer_decay <= 1, "above 0, at most 1 (off)")
    good("ema", 0 <= optim.ema < 1, "0 (off) to below 1")
    lora = optim.lora
    expect(lora.rank >= 0, "optim.lora.rank", lora.rank, "0 (off) or more")
    if lora.rank and optim.freeze:
        raise InputError("config.optim.freeze and config.optim.lora.rank are both set; LoRA freezes"
                         " all but its updates and optim.lora.train")  # fmt: skip
    for name, patterns in (
        ("freeze", optim.freeze), ("lora.kernels", lora.kernels), ("lora.train", lora.train)
    ):  # fmt: skip
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"config.optim.{name} has {pattern!r}, which is no pattern ({error})"
                ) from error
