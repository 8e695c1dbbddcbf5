"""ruCLIP Small, the first ruCLIP: OpenAI's image tower and ruGPT-3 small meet in one space.

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
    """A linear map, and what a second one makes of it, added and normalised.

    The original drops half of the second map's output in training; there is no dropout here.
    """

    config: RuclipSmallConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """float32[B, I] -> float32[B, E]"""
        kernel, E = nn.initializers.lecun_normal(), self.config.embed_dim
        first = jnp.einsum("BI,IE->BE", x, self.param("in_kernel", kernel, (x.shape[-1], E)))
        out_kernel = self.param("out_kernel", kernel, (E, E))
        second = jnp.einsum("BE,EF->BF", quick_gelu(first), out_kernel)
        return LayerNorm(self.config.layer_norm_epsilon, name="norm")(first + second)


class RuclipSmall(nn.Module):
    """Both towers with their projections and the logarithm of the logit scale; see `model.Clip`."""

    config: RuclipSmallConfig
    compute: Compute = Compute()
    stacked: bool = True

    def setup(self) -> None:
        self.visual = VisionTower(self.config.picture_clip, self.compute, self.stacked)
        text = self.config.text_clip
        self.text = TextTower(text, self.compute, projected=False, stacked=self.stacked)
        self.visual_projection = ResidualProjection(self.config)
        self.text_projection = ResidualProjection(self.config)
        constant = nn.initializers.constant(INITIAL_LOGIT_SCALE)
        self.logit_scale = self.param("logit_scale", constant, ())

    def encode_image(self, pixel_values: jax.Array) -> jax.Array:
        """float[B, H, W, 3], normalised pixels -> float32[B, E], of unit length."""
        return normalize(self.visual_projection(self.visual(pixel_values)))

    def encode_image_features(self, pixel_values: jax.Array) -> jax.Array:
        """float[B, H, W, 3], normalised pixels -> float32[B, D], before both projections."""
        return self.visual(pixel_values, project=False)

    def encode_text(self, input_ids: jax.Array) -> jax.Array:
        """int32[B, S] -> float32[B, E], of unit length.

        What pads needs no mask: no token before it looks at it, and the EOS is before it.
        """
        return normalize(self.text_projection(self.text(input_ids)))

    def __call__(
        self, input_ids: jax.Array, pixel_values: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Unit features of images and of texts, float32[B, E] each; logit scale, not its log."""
        image, text = self.encode_image(pixel_values), self.encode_text(input_ids)
        return image, text, jnp.exp(self.logit_scale)
