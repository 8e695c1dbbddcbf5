"""The network of Real-ESRGAN: residual in residual dense blocks (RRDB), then upsampling.

# B batch, H x W pixels, s scale, C features, G growth

Source: Wang et al. 2018 (ESRGAN), 2021 (Real-ESRGAN); `rudalle.realesrgan.rrdbnet_arch`.
Channels come last. Parameters keep the dtype they are given; activations and products use
`Compute.dtype`, the images that come out are float32.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from clip_jax.config import Compute
from clip_jax.jit_apply import param_shapes
from rudolph_jax.upscaler.config import UpscalerConfig
from rudolph_jax.vqgan import Conv

SLOPE = 0.2  # of leaky ReLUs
RESIDUAL_SCALE = 0.2  # of what a block adds to its input


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees the input and all results before it."""

    config: UpscalerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features = x
        for i in range(1, 5):
            y = leaky_relu(Conv(self.config.growth, name=f"conv_{i}")(features))
            features = jnp.concatenate([features, y], axis=-1)
        return x + RESIDUAL_SCALE * Conv(self.config.features, name="conv_5")(features)


class Rrdb(nn.Module):
    """Three dense blocks inside a residual connection."""

    config: UpscalerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for i in range(1, 4):
            y = DenseBlock(self.config, name=f"dense_{i}")(y)
        return x + RESIDUAL_SCALE * y


class RrdbNet(nn.Module):
    """`RrdbNet(config, compute).init(rng, images)` makes parameters, `apply` runs it."""

    config: UpscalerConfig
    compute: Compute = Compute()

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Enlarges float[B, H, W, 3], 0 to 1 -> float32[B, s H, s W, 3], not clipped.

        H and W are multiples of `config.unshuffle`. Around an image are zeros, in every layer.
        """
        config = self.config
        x = pixel_unshuffle(images.astype(self.compute.dtype), config.unshuffle)
        x = Conv(config.features, name="conv_first")(x)
        y = x
        for i in range(config.blocks):
            y = Rrdb(config, name=f"block_{i}")(y)
        x = x + Conv(config.features, name="conv_body")(y)
        for i in range(1, upsamplings(config) + 1):
            x = x.repeat(2, axis=1).repeat(2, axis=2)
            x = leaky_relu(Conv(config.features, name=f"conv_up_{i}")(x))
        x = leaky_relu(Conv(config.features, name="conv_hr")(x))
        return Conv(3, name="conv_last")(x).astype(jnp.float32)


def upsamplings(config: UpscalerConfig) -> int:
    """Returns how many times the network doubles the sides of its features."""
    return 3 if config.scale == 8 else 2


def leaky_relu(x: jax.Array) -> jax.Array:
    return nn.leaky_relu(x, SLOPE)


def pixel_unshuffle(x: jax.Array, side: int) -> jax.Array:
    """Moves squares of pixels to channels: [B, H, W, C] -> [B, H / side, W / side, C side side].

    A channel's square stays together, row by row, as PyTorch's `pixel_unshuffle` orders them.
    """
    B, H, W, C = x.shape
    x = x.reshape(B, H // side, side, W // side, side, C)
    return x.transpose(0, 1, 3, 5, 2, 4).reshape(B, H // side, W // side, C * side * side)


def abstract_params(config: UpscalerConfig) -> dict:
    """Returns shapes and dtypes of the parameters, without computing anything."""
    side = config.unshuffle
    return param_shapes(RrdbNet, config, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))


def init_params(config: UpscalerConfig, rng: jax.Array) -> dict:
    """Initializes parameters. rng: any key."""
    # Compiled, JAX's usual generator makes a loop for each of the many parameters: a minute.
    rng = jax.random.wrap_key_data(jax.random.bits(rng, (4,), jnp.uint32), impl="rbg")
    images = jnp.zeros((1, config.unshuffle, config.unshuffle, 3))
    return RrdbNet(config).init(rng, images)["params"]
