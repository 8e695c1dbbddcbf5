"""The first results of a process that has just begun."""

from __future__ import annotations

import time

BEGUN = time.perf_counter()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import clip_jax  # noqa: E402
import rudolph_jax  # noqa: E402
from benchmarks.peers.serve import serve  # noqa: E402
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate, prefill  # noqa: E402
from rudolph_jax.sampling import IMAGE_SAMPLING  # noqa: E402

IMPORTED = time.perf_counter() - BEGUN


def draw(folder: str) -> dict[str, float]:
    """Seconds until the first code of one image, and until the whole image could be drawn.

    Reading the weights is not in them, importing the packages is.
    """
    rudolph = rudolph_jax.load(folder)
    left, length = rudolph.config.left_text_length, rudolph.layout.image_length
    plan = SamplerConfig(rudolph.config, rudolph.compute, "image", 1)
    begun = time.perf_counter()
    request = SamplerInputs(
        prompts=jnp.ones((1, 1, left), jnp.int32),
        start=jnp.int32(left),
        stop=jnp.int32(length),
        fixed=jnp.full((1, length), -1, jnp.int32),
        allowed=jnp.ones(1, bool),
        keys=jax.random.split(jax.random.key(0), 1),
        options=IMAGE_SAMPLING.to_arrays(),
        guidance_weight=jnp.float32(0),
    )
    with rudolph.precision:
        run = jax.jit(prefill, static_argnums=0)
        jax.block_until_ready(run(plan, rudolph.inference_params, request))
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        generate.lower(plan, rudolph.inference_params, request).compile()
        whole = time.perf_counter() - begun
    return {"first code": IMPORTED + first, "program of a picture": IMPORTED + whole}


def embed(folder: str) -> dict[str, float]:
    """Seconds until the first image's embedding, counted in the same way."""
    clip = clip_jax.load(folder)
    size = clip.config.vision.image_size
    begun = time.perf_counter()
    np.asarray(clip.encode_image(np.zeros((1, size, size, 3), np.float32)))
    return {"first picture": IMPORTED + time.perf_counter() - begun}


if __name__ == "__main__":
    serve({"draw": draw, "embed": embed})
