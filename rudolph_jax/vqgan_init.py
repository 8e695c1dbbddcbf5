"""Initial parameters of the image tokenizer for training it in few steps.

PyTorch's own initialization makes a signal weaker with each convolution, and residual branches
outweigh it: a small network, even without a quantizer, needs hundreds of steps before an image's
colours come through.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from clip_jax.config import check_choice
from rudolph_jax.config import VqganConfig
from rudolph_jax.vqgan import init_params

INITIALIZATIONS = ("pytorch", "zero_residual")


def initial_params(config: VqganConfig, initialization: str, rng: jax.Array) -> dict:
    """Initializes parameters in one of `INITIALIZATIONS`. rng: any key.

    pytorch: as `init_params`.
    zero_residual: the last kernel of each residual branch is zero, so that blocks begin as the
        identity (Goyal et al. 2017, section 5.1); other kernels have variance 1 / fan-in; logits
        begin as the products of a latent and the rows of the codebook.
    """
    check_choice("initialization", initialization, INITIALIZATIONS)
    params = init_params(config, rng)
    return params if initialization == "pytorch" else _zero_residual(params)


def _zero_residual(params: dict) -> dict:
    def changed(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = "/".join(str(key.key) for key in path)
        # Attention modules of levels are numbered: "attention_0/out_kernel".
        if name.endswith("conv_2/kernel") or name.endswith("/out_kernel"):
            return jnp.zeros_like(leaf)
        # `KERNEL` of the network has a third of this variance.
        return leaf * 3**0.5 if name.endswith("kernel") else leaf

    params = jax.tree_util.tree_map_with_path(changed, params)
    # A gradient that draws a latent to a row of the codebook then makes that code likelier.
    head = {**params["code_head"], "kernel": params["codebook"].T}
    return {**params, "code_head": head}
