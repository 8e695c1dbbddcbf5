"""ruCLIP and OpenAI's CLIP: an image tower and a text tower with a joint embedding space.

# B batch, N image tokens, S text tokens, T either, D width, H heads, K head size,
# F mlp width, E embedding, P patch side, C channels, V vocabulary

Source: Radford et al. 2021, sections 2.4 and 2.5; `ruclip.model` and `clip.model`.
Parameters keep the dtype they are given; activations and products use `Compute.dtype`,
layer norms and features float32.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.activation import activate
from clip_jax.attention import self_attention
from clip_jax.config import ClipConfig, Compute, TextConfig, VisionConfig
from clip_jax.fused import ATTENTION_RESIDUALS
from clip_jax.jit_apply import param_shapes
from clip_jax.linear import MATMUL, einsum, linear
from clip_jax.moments import mean_and_variance
from clip_jax.sharding import constrain_batch, constrain_embedding

INITIAL_LOGIT_SCALE = 2.659260036932778  # ln(1 / 0.07)
# For the sigmoid loss, most of whose pairs are negatives (Zhai et al. 2023, section 3.2).
INITIAL_SIGMOID_SCALE, INITIAL_LOGIT_BIAS = 2.302585092994046, -10.0  # ln 10
MAX_LOGIT_SCALE = 4.605170185988092  # ln 100, where CLIP clips it


class LayerNorm(nn.Module):
    """Normalises in float32; the result has the input's dtype."""

    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        mean, variance = mean_and_variance(x)
        y = (x.astype(jnp.float32) - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (y * scale + bias).astype(x.dtype)


class Attention(nn.Module):
    tower: VisionConfig | TextConfig
    fused: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, causal: bool) -> jax.Array:
        D, H, L = self.tower.width, self.tower.heads, self.tower.layers
        K = D // H
        kernel = nn.initializers.normal(D**-0.5)
        # CLIP scales what enters the residual stream by the number of sublayers.
        residual_kernel = nn.initializers.normal(D**-0.5 * (2 * L) ** -0.5)
        qkv = linear(self, "qkv", "BTD,DcHK->BTcHK", x, (D, 3, H, K), kernel)
        y = self_attention(qkv, causal, self.fused)
        return linear(self, "out", "BTHK,HKD->BTD", y, (H, K, D), residual_kernel)


class Mlp(nn.Module):
    config: ClipConfig
    tower: VisionConfig | TextConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        D, F, L = self.tower.width, self.tower.mlp_width, self.tower.layers
        kernel = nn.initializers.normal((2 * D) ** -0.5)
        residual_kernel = nn.initializers.normal(D**-0.5 * (2 * L) ** -0.5)
        y = linear(self, "in", "BTD,DF->BTF", x, (D, F), kernel)
        y = activate(self.config.activation, y)
        return linear(self, "out", "BTF,FD->BTD", y, (F, D), residual_kernel)


class Block(nn.Module):
    """Applies a pre-norm residual block; returns the next x, and None as the output of a scan."""

    config: ClipConfig
    tower: VisionConfig | TextConfig
    causal: bool
    fused: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        epsilon = self.config.layer_norm_epsilon
        x = constrain_batch(x)
        y = LayerNorm(epsilon, name="attention_norm")(x)
        x = x + Attention(self.tower, self.fused, name="attention")(y, self.causal)
        y = LayerNorm(epsilon, name="mlp_norm")(x)
        return x + Mlp(self.config, self.tower, name="mlp")(y), None


def maybe_remat(block: type[nn.Module], compute: Compute) -> Any:
    """Wraps a block in `nn.remat` as `Compute.remat` says."""
    if compute.remat == "none":
        return block
    # A scan keeps the compiler from merging the recomputation with the forward pass.
    return nn.remat(block, prevent_cse=False, policy=remat_policy(compute))


def remat_policy(compute: Compute) -> Any:
    """Returns what `Compute.remat`, "block" or "dots", saves besides a block's input."""
    dots = jax.checkpoint_policies.save_only_these_names(MATMUL, ATTENTION_RESIDUALS)
    return {"block": None, "dots": dots}[compute.remat]


def scanned_blocks(
    config: ClipConfig, tower: VisionConfig | TextConfig, compute: Compute, causal: bool
) -> nn.Module:
    """Returns a tower's blocks as one scan over parameters with a leading axis of layers."""
    stack = nn.scan(
        maybe_remat(Block, compute),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=tower.layers,
        unroll=min(compute.unroll, tower.layers),
    )
    return stack(config, tower, causal, compute.fused_attention, name="layers")


class UnrolledBlocks(nn.Module):
    """Runs a tower's blocks on unstacked parameters, as a model folder has them.

    A scan would slice each layer's out of stacked ones, which copies them.
    """

    config: ClipConfig
    tower: VisionConfig | TextConfig
    causal: bool
    fused: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, None]:
        for layer in range(self.tower.layers):
            x, _ = Block(self.config, self.tower, self.causal, self.fused, name=str(layer))(x)
        return x, None


def make_encoder(
    config: ClipConfig,
    tower: VisionConfig | TextConfig,
    compute: Compute,
    causal: bool,
    stacked: bool,
) -> nn.Module:
    """Returns a tower's blocks, as a scan if their parameters are stacked (`layers.py`)."""
    if stacked:
        return scanned_blocks(config, tower, compute, causal)
    return UnrolledBlocks(config, tower, causal, compute.fused_attention, name="layers")


class VisionTower(nn.Module):
    config: ClipConfig
    compute: Compute
    stacked: bool = True

    @nn.compact
    def __call__(
        self,
        pixel_values: jax.Array,
        patch_dropout_keys: jax.Array | None = None,
        patch_dropout_rate: float = 0.0,
        with_projection: bool = True,
    ) -> jax.Array:
        """Encodes float[B, image_size, image_size, 3] to float32[B, E].

        patch_dropout_keys: key[B]; None: no patch is dropped.
        patch_dropout_rate: fraction of each image's patches to drop.
        with_projection: False returns the features before the projection, float32[B, D].
        """
        vision, E = self.config.vision, self.config.embed_dim
        P, D, n = vision.patch_size, vision.width, vision.patches_per_side
        dtype, epsilon = jnp.dtype(self.compute.dtype), self.config.layer_norm_epsilon
        scale = nn.initializers.normal(D**-0.5)
        B, C = pixel_values.shape[0], pixel_values.shape[-1]
        kernel = _PatchEmbedding(vision, C, name="patch_embedding")()
        patches = pixel_values.astype(dtype).reshape(B, n, P, n, P, C)
        x = einsum("BnPmQC,PQCD->BnmD", patches, kernel.astype(dtype)).reshape(B, n * n, D)
        class_embedding = self.param("class_embedding", scale, (D,)).astype(dtype)
        x = jnp.concatenate([jnp.broadcast_to(class_embedding, (B, 1, D)), x], axis=1)
        x = x + self.param("position_embedding", scale, (vision.tokens, D)).astype(dtype)
        if patch_dropout_keys is not None and patch_dropout_rate:
            x = _drop_patches(x, patch_dropout_keys, patch_dropout_rate)
        x = LayerNorm(epsilon, name="pre_norm")(x)
        x, _ = make_encoder(self.config, vision, self.compute, False, self.stacked)(x)
        x = LayerNorm(epsilon, name="post_norm")(x[:, 0].astype(jnp.float32))
        kernel = self.param("projection", scale, (D, E))
        return jnp.einsum("BD,DE->BE", x, kernel) if with_projection else x


def _drop_patches(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
    """Keeps the class token and a random choice of patches: float[B, 1 + N, D] -> [B, 1 + n, D].

    Source: Li et al. 2022 (FLIP), section 3.1.
    """
    N = x.shape[1] - 1
    num_kept = max(round(N * (1 - rate)), 1)
    noise = jax.vmap(lambda key: jax.random.uniform(key, (N,)))(keys)
    chosen = jnp.sort(jax.lax.top_k(noise, num_kept)[1], axis=1) + 1
    patches = jnp.take_along_axis(x, chosen[..., None], axis=1)
    return jnp.concatenate([x[:, :1], patches], axis=1)


class _PatchEmbedding(nn.Module):
    vision: VisionConfig
    channels: int

    @nn.compact
    def __call__(self) -> jax.Array:
        P, C, D = self.vision.patch_size, self.channels, self.vision.width
        return self.param("kernel", nn.initializers.lecun_normal(in_axis=(0, 1, 2)), (P, P, C, D))


class TextTower(nn.Module):
    """Encodes texts. with_projection: whether to project features to the embedding space."""

    config: ClipConfig
    compute: Compute
    with_projection: bool = True
    stacked: bool = True

    @nn.compact
    def __call__(self, input_ids: jax.Array) -> jax.Array:
        """Encodes int32[B, S], S at most context_length, to float32[B, E]; unprojected [B, D].

        The sequence is pooled at its first EOS; a row without one is pooled at position 0 here
        (compiled code cannot raise): `PretrainedClip` and the data pipeline refuse such rows.
        """
        text, E = self.config.text, self.config.embed_dim
        D, dtype, S = text.width, jnp.dtype(self.compute.dtype), input_ids.shape[1]
        table = self.param("token_embedding", nn.initializers.normal(0.02), (text.vocab_size, D))
        positions = self.param(
            "position_embedding", nn.initializers.normal(0.01), (text.context_length, D)
        )
        x = constrain_embedding(table[input_ids].astype(dtype)) + positions[:S].astype(dtype)
        x, _ = make_encoder(self.config, text, self.compute, True, self.stacked)(x)
        first_eos = jnp.argmax(input_ids == self.config.eos_id, axis=1)
        x = jnp.take_along_axis(x, first_eos[:, None, None], axis=1)[:, 0].astype(jnp.float32)
        # The norm acts on each token alone, so only the pooled one is normalised.
        x = LayerNorm(self.config.layer_norm_epsilon, name="final_norm")(x)
        if not self.with_projection:
            return x
        kernel = self.param("projection", nn.initializers.normal(D**-0.5), (D, E))
        return jnp.einsum("BD,DE->BE", x, kernel)


class Clip(nn.Module):
    """Holds both towers, the log of the logit scale and, for the sigmoid loss, the logit bias.

    `Clip(config, compute).init(rng, input_ids, pixel_values)` makes parameters with layers stacked.
    stacked: whether the layers' parameters are stacked, or one by one as in a model folder.
    """

    config: ClipConfig
    compute: Compute = Compute()
    stacked: bool = True

    def setup(self) -> None:
        self.visual = VisionTower(self.config, self.compute, self.stacked)
        self.text = TextTower(self.config, self.compute, stacked=self.stacked)
        sigmoid, constant = self.config.logit_bias, nn.initializers.constant
        scale = INITIAL_SIGMOID_SCALE if sigmoid else INITIAL_LOGIT_SCALE
        self.logit_scale = self.param("logit_scale", constant(scale), ())
        if sigmoid:
            self.logit_bias = self.param("logit_bias", constant(INITIAL_LOGIT_BIAS), ())

    def encode_image(
        self,
        pixel_values: jax.Array,
        patch_dropout_keys: jax.Array | None = None,
        patch_dropout_rate: float = 0.0,
    ) -> jax.Array:
        """Encodes normalised pixels, float[B, H, W, 3], to float32[B, E], not of unit length.

        patch_dropout_keys, patch_dropout_rate: see `VisionTower`; for training alone.
        """
        return self.visual(pixel_values, patch_dropout_keys, patch_dropout_rate)

    def encode_image_features(self, pixel_values: jax.Array) -> jax.Array:
        """Encodes float[B, H, W, 3] to float32[B, D], the features that `encode_image` projects."""
        return self.visual(pixel_values, with_projection=False)

    def encode_text(self, input_ids: jax.Array) -> jax.Array:
        """Encodes int32[B, S] to float32[B, E], not of unit length."""
        return self.text(input_ids)

    def __call__(
        self, input_ids: jax.Array, pixel_values: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns unit features of images and texts, float32[B, E] each, and exp(logit_scale)."""
        image = normalize(self.encode_image(pixel_values))
        text = normalize(self.encode_text(input_ids))
        return image, text, jnp.exp(self.logit_scale)


def normalize(x: np.ndarray | jax.Array) -> jax.Array:
    """Divides rows, float[..., E], by their length; a zero row gives NaN."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def abstract_params(config: Any, model: type[nn.Module] = Clip) -> dict:
    """Returns shapes and dtypes of the parameters, layers stacked, without computing anything.

    model: the module class that the config describes.
    """
    vision = config.vision
    ids = jax.ShapeDtypeStruct((1, 1), jnp.int32)  # no parameter's shape depends on the input's
    pixels = jax.ShapeDtypeStruct((1, vision.image_size, vision.image_size, 3), jnp.float32)
    return param_shapes(model, config, ids, pixels)
