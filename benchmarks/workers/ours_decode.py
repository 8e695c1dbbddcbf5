"""This project's decoding by its parts, so that a part of an image can be timed."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

import rudolph_jax
from benchmarks.workers.sampler_inputs import image_inputs
from benchmarks.workers.serve import serve
from clip_jax import Compute
from rudolph_jax import incremental
from rudolph_jax.decode import (
    SamplerConfig,
    SamplerInputs,
    SamplingState,
    decode_step,
    prefill,
    sample_loop,
)
from rudolph_jax.incremental import KeyValues, Params
from rudolph_jax.sampling import SamplingParams


class DecodeTasks:
    """Run `decode.generate` on one prompt."""

    def setup(
        self,
        folder: str,
        batch: int,
        dtype: str,
        position: int,
        windowed_cache: bool = True,
        weights: str = "stored",
    ) -> None:
        """position: of the first timed code; each costs the same."""
        compute = Compute(dtype=dtype)
        model = rudolph_jax.load(folder, compute=compute, weights=weights)
        self.sampler = SamplerConfig(
            model.config, compute, "image", batch, windowed_cache=windowed_cache
        )
        self.precision, self.params = (
            model.precision,
            incremental.cast_params(model.inference_params, compute),
        )
        self.inputs = image_inputs(model.config, batch)
        self.position = position
        # The number of codes is traced here: one program serves all counts.
        self.sample_loop = jax.jit(sample_loop, static_argnums=0, donate_argnums=4)
        self.prefill = jax.jit(prefill, static_argnums=0)
        with self.precision:
            self.prompt, self.state = self.prefill(self.sampler, self.params, self.inputs)

    def decode(self, repeats: int) -> None:
        state = self.state._replace(position=jnp.int32(self.position))
        with self.precision:
            arguments = (self.sampler, self.params, self.inputs, self.prompt, state, repeats)
            self.state = jax.block_until_ready(self.sample_loop(*arguments))

    def greedy_codes(self, count: int) -> dict[str, list]:
        """Return the greedy codes of the first sample, and the logits after them."""
        inputs = self.inputs._replace(sampling=SamplingParams(temperature=0.0).to_arrays())

        @partial(jax.jit, static_argnums=0)
        def logits(
            sampler: SamplerConfig,
            params: Params,
            inputs: SamplerInputs,
            prompt: KeyValues,
            state: SamplingState,
        ) -> jax.Array:
            hidden, _ = decode_step(sampler, params, inputs, prompt, state)
            logits_fn = incremental.make_logits_fn(
                sampler.config, sampler.compute, params, sampler.logit_slice
            )
            return logits_fn(hidden)[0]

        with self.precision:
            arguments = (self.sampler, self.params, inputs)
            prompt, state = self.prefill(*arguments)
            state = self.sample_loop(*arguments, prompt, state, count - 1)
            next_logits = logits(*arguments, prompt, state)
        return {"codes": state.tokens[0, :count].tolist(), "logits": next_logits.tolist()}


if __name__ == "__main__":
    tasks = DecodeTasks()
    serve({"setup": tasks.setup, "decode": tasks.decode, "greedy_codes": tasks.greedy_codes})
