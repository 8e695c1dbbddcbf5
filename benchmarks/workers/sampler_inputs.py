"""What the sampler of one image prompt is given where its speed is measured."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rudolph_jax.config import RudolphConfig
from rudolph_jax.decode import SamplerInputs
from rudolph_jax.layout import BOS, Layout
from rudolph_jax.sampling import IMAGE_SAMPLING


def image_inputs(config: RudolphConfig, batch: int) -> SamplerInputs:
    """Return the inputs that sample `batch` images of a prompt that is empty but for its BOS."""
    left, length = config.left_text_length, Layout(config).image_length
    return SamplerInputs(
        prompts=jnp.zeros((1, 1, left), jnp.int32).at[..., 0].set(BOS),
        start=jnp.int32(left),
        stop=jnp.int32(length),
        forced_tokens=jnp.full((1, length), -1, jnp.int32),
        allowed_tokens=jnp.ones(1, bool),
        keys=jax.random.split(jax.random.key(0), batch),
        sampling=IMAGE_SAMPLING.to_arrays(),
        guidance_weight=jnp.float32(0),
    )
