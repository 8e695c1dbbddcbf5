"""The image tokenizer: a VQGAN with a Gumbel quantizer, for images of any size.

# B batch, H x W pixels, h x w tokens (H = h * patch_size), T = h w positions, C and D channels,
# G groups of channels, L latent channels, V codes

Source: Esser et al. 2021 (taming-transformers), `rudalle.vae`; quantizer: Jang et al. 2016.
Channels come last. Parameters keep the dtype they are given; activations and products use
`Compute.dtype`, group norms, attention weights, logits of codes and pixels float32.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clip_jax.config import Compute
from clip_jax.jit_apply import param_shapes
from rudolph_jax.config import VqganConfig
from rudolph_jax.wavelet import inverse_dwt

NORM_EPSILON = 1e-6
# PyTorch's own: uniform, of variance 1 / (3 fan-in).
KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
QKV_KERNEL = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", 0, (1, 2))
ZEROS = nn.initializers.zeros


class GroupNorm(nn.Module):
    """Group norm: statistics and scaling in float32, result in the input's dtype."""

    groups: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        C = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (C,))
        bias = self.param("bias", ZEROS, (C,))
        y = x.astype(jnp.float32)
        y = y - self._group_means(y)
        variance = self._group_means(jnp.square(y))
        y = y * jax.lax.rsqrt(variance + NORM_EPSILON)
        return (y * scale + bias).astype(x.dtype)

    def _group_means(self, x: jax.Array) -> jax.Array:
        """Averages float32[B, H, W, C] -> float32[B, 1, 1, C], equal within a group."""
        B, _, _, C = x.shape
        # Channels are grouped after the large sum: on a CPU several times as fast as before it.
        means = x.mean((1, 2)).reshape(B, self.groups, C // self.groups).mean(-1)
        return means.repeat(C // self.groups, axis=-1)[:, None, None]


class Conv(nn.Module):
    """3x3 convolution; with stride 2 it halves the sides."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", KERNEL, (3, 3, x.shape[-1], self.channels))
        bias = self.param("bias", ZEROS, (self.channels,))
        # The strided one is padded on the right and below alone, as in the original.
        padding = ((1, 1), (1, 1)) if self.stride == 1 else ((0, 1), (0, 1))
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (self.stride, self.stride),
            padding,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y + bias.astype(x.dtype)


class Conv1x1(nn.Module):
    """1x1 convolution: the same matrix at every position."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", KERNEL, (x.shape[-1], self.channels)).astype(x.dtype)
        bias = self.param("bias", ZEROS, (self.channels,)).astype(x.dtype)
        return jnp.einsum("BhwC,CD->BhwD", x, kernel) + bias


class ResidualBlock(nn.Module):
    config: VqganConfig
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        G, D = self.config.norm_groups, self.channels
        y = Conv(D, name="conv_1")(nn.silu(GroupNorm(G, name="norm_1")(x)))
        y = Conv(D, name="conv_2")(nn.silu(GroupNorm(G, name="norm_2")(y)))
        if x.shape[-1] != D:
            x = Conv1x1(D, name="shortcut")(x)
        return x + y


class Attention(nn.Module):
    """Self-attention over all positions, with a single head as wide as the channels."""

    config: VqganConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        B, H, W, C = x.shape
        qkv_kernel = self.param("qkv_kernel", QKV_KERNEL, (C, 3, C)).astype(x.dtype)
        qkv_bias = self.param("qkv_bias", ZEROS, (3, C)).astype(x.dtype)
        out_kernel = self.param("out_kernel", KERNEL, (C, C)).astype(x.dtype)
        out_bias = self.param("out_bias", ZEROS, (C,)).astype(x.dtype)
        y = GroupNorm(self.config.norm_groups, name="norm")(x).reshape(B, H * W, C)
        q, k, v = jnp.moveaxis(jnp.einsum("BTC,CcD->BTcD", y, qkv_kernel) + qkv_bias, 2, 0)
        scores = jnp.einsum("BTD,BSD->BTS", q, k, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores * C**-0.5, axis=-1).astype(x.dtype)
        y = jnp.einsum("BTS,BSD->BTD", weights, v)
        y = jnp.einsum("BTD,DC->BTC", y, out_kernel) + out_bias
        return x + y.reshape(x.shape)


class Stage(nn.Module):
    """Residual blocks, and attention, at one resolution."""

    config: VqganConfig
    compute: Compute
    level: int
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        block = _maybe_remat(ResidualBlock, self.compute)
        channels = config.channels * config.channel_multipliers[self.level]
        for i in range(self.blocks):
            x = block(config, channels, name=f"block_{i}")(x)
            if self.level in config.attention_levels:
                x = Attention(config, name=f"attention_{i}")(x)
        return x


class MidBlock(nn.Module):
    config: VqganConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        block = _maybe_remat(ResidualBlock, self.compute)
        x = block(self.config, x.shape[-1], name="block_1")(x)
        x = Attention(self.config, name="attention")(x)
        return block(self.config, x.shape[-1], name="block_2")(x)


class Encoder(nn.Module):
    config: VqganConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Encodes float[B, H, W, 3] -> float[B, h, w, L]."""
        config = self.config
        last = len(config.channel_multipliers) - 1
        x = Conv(config.channels, name="conv_in")(x)
        for level in range(last + 1):
            blocks = config.residual_blocks
            x = Stage(config, self.compute, level, blocks, name=f"level_{level}")(x)
            if level != last:
                x = Conv(x.shape[-1], stride=2, name=f"downsample_{level}")(x)
        x = MidBlock(config, self.compute, name="middle")(x)
        x = nn.silu(GroupNorm(config.norm_groups, name="norm_out")(x))
        return Conv(config.latent_channels, name="conv_out")(x)


class Decoder(nn.Module):
    config: VqganConfig
    compute: Compute

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Decodes float[B, h, w, L] -> float[B, H, W, 3], or 12 wavelet coefficients a pixel."""
        config = self.config
        last = len(config.channel_multipliers) - 1
        x = Conv(config.channels * config.channel_multipliers[last], name="conv_in")(x)
        x = MidBlock(config, self.compute, name="middle")(x)
        for level in reversed(range(last + 1)):
            blocks = config.residual_blocks + 1
            x = Stage(config, self.compute, level, blocks, name=f"level_{level}")(x)
            if level:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                x = Conv(x.shape[-1], name=f"upsample_{level}")(x)
        x = nn.silu(GroupNorm(config.norm_groups, name="norm_out")(x))
        return Conv(12 if config.wavelet else 3, name="conv_out")(x)


class Vqgan(nn.Module):
    """`Vqgan(config, compute).init(rng, images)` makes parameters, `apply(..., method=)` runs it.

    Pixels are float[B, H, W, 3] from 0 to 1, sides multiples of `config.patch_size`. A wavelet
    decoder's images have sides twice as long as those that were encoded.
    """

    config: VqganConfig
    compute: Compute = Compute()

    def setup(self) -> None:
        config = self.config
        L, V = config.latent_channels, config.codebook_size
        self.encoder = Encoder(config, self.compute)
        self.quant_conv, self.code_head = Conv1x1(L), Conv1x1(V)
        self.codebook = self.param("codebook", nn.initializers.normal(1.0), (V, L))
        self.post_quant_conv = Conv1x1(L)
        self.decoder = Decoder(config, self.compute)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Reconstructs pixels through codes."""
        codes = self.code_logits(images).argmax(axis=-1)
        return self.decode(codes)

    def latents(self, images: jax.Array) -> jax.Array:
        """Encodes pixels -> float[B, h, w, L], before quantization."""
        x = (2 * images.astype(jnp.float32) - 1).astype(self.compute.dtype)
        return self.quant_conv(self.encoder(x))

    def code_logits(self, images: jax.Array) -> jax.Array:
        """Encodes pixels -> float32[B, h, w, V]."""
        return self.code_head(self.latents(images)).astype(jnp.float32)

    def encode(self, images: jax.Array) -> jax.Array:
        """Encodes pixels -> the likeliest codes int32[B, T], row by row."""
        codes = self.code_logits(images).argmax(axis=-1).astype(jnp.int32)
        B, h, w = codes.shape
        return codes.reshape(B, h * w)

    def decode(self, codes: jax.Array) -> jax.Array:
        """Decodes int32[B, h, w] -> pixels float32, from 0 to 1."""
        return self.decode_latents(self.codebook[codes]).clip(0, 1)

    def decode_latents(self, z: jax.Array) -> jax.Array:
        """Decodes float[B, h, w, L], codebook rows or their mixtures -> pixels before clipping."""
        x = self.decoder(self.post_quant_conv(z.astype(self.compute.dtype))).astype(jnp.float32)
        if self.config.wavelet:
            x = inverse_dwt(x)
        return (x + 1) / 2


def abstract_params(config: VqganConfig) -> dict:
    """Returns shapes and dtypes of the parameters, without computing anything."""
    images = jax.ShapeDtypeStruct((1, config.patch_size, config.patch_size, 3), jnp.float32)
    return param_shapes(Vqgan, config, images)


def init_params(config: VqganConfig, rng: jax.Array) -> dict:
    """Initializes parameters. rng: any key."""
    # Compiled, JAX's usual generator makes a loop for each of the many parameters: a minute.
    rng = jax.random.wrap_key_data(jax.random.bits(rng, (4,), jnp.uint32), impl="rbg")
    images = jnp.zeros((1, config.patch_size, config.patch_size, 3))
    return Vqgan(config).init(rng, images)["params"]


def _maybe_remat(block: type[nn.Module], compute: Compute) -> Any:
    """Wraps a block in `nn.remat` as `Compute.remat` says; "dots" includes convolutions."""
    if compute.remat == "none":
        return block
    return nn.remat(block, policy=_save_products if compute.remat == "dots" else None)


def _save_products(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive in (jax.lax.conv_general_dilated_p, jax.lax.dot_general_p)
