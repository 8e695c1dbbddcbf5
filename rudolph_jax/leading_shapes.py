"""Shapes of a few parameters that follow from a config by arithmetic (clip_jax/leading_shapes.py).

path -> {field of the config: size of the axis}
"""

from __future__ import annotations

from clip_jax.leading_shapes import Leading
from rudolph_jax.config import RudolphConfig, VqganConfig
from rudolph_jax.layout import Layout
from rudolph_jax.upscaler.config import UpscalerConfig


def leading_shapes(config: RudolphConfig) -> Leading:
    """Returns those of tables, of the head and of the last layer."""
    layout, width = Layout(config), config.width
    side, last = config.image_tokens_per_side, f"layers/{config.layers - 1}"
    right = config.right_text_length
    return {
        "final_norm/scale": {"width": width},
        "left_position_embedding": {"left_text_length": config.left_text_length + 1},
        **({"right_position_embedding": {"right_text_length": right + 1}} if right else {}),
        "image_row_embedding": {"image_tokens_per_side": side},
        "head/bias": {"text_vocab_size + image_vocab_size": layout.vocab_size},
        "text_embedding": {"text_vocab_size": layout.num_text_ids, "width": width},
        "image_embedding": {"image_vocab_size": layout.num_image_ids, "width": width},
        f"{last}/mlp_norm/scale": {"layers": width},
    }


def vqgan_leading_shapes(config: VqganConfig) -> Leading:
    """Returns those of the codebook, and of the encoder's first and last block."""
    level, block = len(config.channel_multipliers) - 1, config.residual_blocks - 1
    widest = config.channels * config.channel_multipliers[-1]
    return {
        "codebook": {
            "codebook_size": config.codebook_size, "latent_channels": config.latent_channels,
        },
        "encoder/conv_in/bias": {"channels": config.channels},
        f"encoder/level_{level}/block_{block}/conv_2/bias": {
            "residual_blocks + channel_multipliers": widest
        },
    }  # fmt: skip


def upscaler_leading_shapes(config: UpscalerConfig) -> Leading:
    """Returns those of the last convolutions between blocks and in the last block."""
    last = f"block_{config.blocks - 1}/dense_3"
    return {
        "conv_body/bias": {"features": config.features},
        f"{last}/conv_4/bias": {"blocks + growth": config.growth},
        f"conv_up_{3 if config.scale == 8 else 2}/bias": {"scale + features": config.features},
    }
