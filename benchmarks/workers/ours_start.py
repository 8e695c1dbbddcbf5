"""First results of a new process."""

from __future__ import annotations

import time

START = time.perf_counter()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

import clip_jax  # noqa: E402
import rudolph_jax  # noqa: E402
from benchmarks.workers.serve import serve  # noqa: E402
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate, prefill  # noqa: E402
from rudolph_jax.sampling import IMAGE_SAMPLING  # noqa: E402

IMPORT_SECONDS = time.perf_counter() - START


def generate_image(folder: str) -> dict[str, float]:
    """Return seconds until the first code of an image, and until its program is compiled.

    They include importing the packages and leave out reading the weights.
    """
    rudolph = rudolph_jax.load(folder)
    left, length = rudolph.config.left_text_length, rudolph.layout.image_length
    sampler = SamplerConfig(rudolph.config, rudolph.compute, "image", 1)
    start = time.perf_counter()
    inputs = SamplerInputs(
        prompts=jnp.ones((1, 1, left), jnp.int32),
        start=jnp.int32(left),
        stop=jnp.int32(length),
        forced_tokens=jnp.full((1, length), -1, jnp.int32),
        allowed_tokens=jnp.ones(1, bool),
        keys=jax.random.split(jax.random.key(0), 1),
        sampling=IMAGE_SAMPLING.to_arrays(),
        guidance_weight=jnp.float32(0),
    )
    with rudolph.precision:
        jitted_prefill = jax.jit(prefill, static_argnums=0)
        jax.block_until_ready(jitted_prefill(sampler, rudolph.inference_params, inputs))
        first = time.perf_counter() - start
        start = time.perf_counter()
        generate.lower(sampler, rudolph.inference_params, inputs).compile()
        program = time.perf_counter() - start
    return {"first code": IMPORT_SECONDS + first, "program of an image": IMPORT_SECONDS + program}


def encode_image(folder: str) -> dict[str, float]:
    """Return seconds until the first image's embedding, counted in the same way."""
    clip = clip_jax.load(folder)
    size = clip.config.vision.image_size
    start = time.perf_counter()
    np.asarray(clip.encode_image(np.zeros((1, size, size, 3), np.float32)))
    return {"first image": IMPORT_SECONDS + time.perf_counter() - start}


if __name__ == "__main__":
    serve({"generate": generate_image, "encode": encode_image})
