"""ruCLIP Small, the first ruCLIP: OpenAI's image tower and ruGPT-3 small in a joint space.

# B batch, S text tokens, H W C pixels, D tower width, I tower features, E embedding

Source: `deprecated/clip/model.py` of the public ru-clip repository. The towers are those of
`model.py`: a GPT-2 is a causal tower with GELU by tanh. Texts come as «Изображение кошки»: PROMPT
with the class's name in the genitive.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from clip_jax.activation import quick_gelu
from clip_jax.config import Compute, RuclipSmallConfig
from clip_jax.model import (
    INITIAL_LOGIT_SCALE,
    LayerNorm,
    TextTower,
    VisionTower,
    normalize,
)

PROMPT = "Изображение {}"


class ResidualProjection(nn.Module):
    """Projects, adds a linear map of quick_gelu of the result, and applies layer norm.

    The original drops half of the second map's output in training; there is no dropout here.
    """

    config: RuclipSmallConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Projects float32[B, I] to float32[B, E]."""
        kernel, E = nn.initializers.lecun_normal(), self.config.embed_dim
        first = jnp.einsum("BI,IE->BE", x, self.param("in_kernel", kernel, (x.shape[-1], E)))
        out_kernel = self.param("out_kernel", kernel, (E, E))
        second = jnp.einsum("BE,EF->BF", quick_gelu(first), out_kernel)
        return LayerNorm(self.config.layer_norm_epsilon, name="norm")(first + second)


class RuclipSmall(nn.Module):
    """Holds both towers, their projections and the log of the logit scale; see `model.Clip`."""

    config: RuclipSmallConfig
    compute: Compute = Compute()
    stacked: bool = True

    def setup(self) -> None:
        self.visual = VisionTower(self.config.vision_clip_config, self.compute, self.stacked)
        text = self.config.text_clip_config
        self.text = TextTower(text, self.compute, with_projection=False, stacked=self.stacked)
        self.visual_projection = ResidualProjection(self.config)
        self.text_projection = ResidualProjection(self.config)
        constant = nn.initializers.constant(INITIAL_LOGIT_SCALE)
        self.logit_scale = self.param("logit_scale", constant, ())

    def encode_image(self, pixel_values: jax.Array) -> jax.Array:
        """Encodes normalised pixels, float[B, H, W, 3], to float32[B, E], of unit length."""
        return normalize(self.visual_projection(self.visual(pixel_values)))

    def encode_image_features(self, pixel_values: jax.Array) -> jax.Array:
        """Encodes normalised pixels, float[B, H, W, 3], to float32[B, D], before projections."""
        return self.visual(pixel_values, with_projection=False)

    def encode_text(self, input_ids: jax.Array) -> jax.Array:
        """Encodes int32[B, S] to float32[B, E], of unit length.

        Padding needs no mask: attention is causal, and the EOS comes before it.
        """
        return normalize(self.text_projection(self.text(input_ids)))

    def __call__(
        self, input_ids: jax.Array, pixel_values: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Returns unit features of images and texts, float32[B, E] each, and exp(logit_scale)."""
        image, text = self.encode_image(pixel_values), self.encode_text(input_ids)
        return image, text, jnp.exp(self.logit_scale)
