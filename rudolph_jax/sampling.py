"""Choosing a token from logits: temperature, top-k, top-p, a categorical sample; and guidance.

# B sequences, V tokens to choose from

The parameters are traced arrays, so that other values of them compile nothing again.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from clip_jax.arguments import check_integer, check_number
from rudolph_jax.threshold import Holds, largest_threshold

MAX_TOP_K = 2**31 - 1  # it is an int32


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """Parameters of sampling.

    temperature: 0 takes the likeliest token, 1 leaves the model's probabilities.
    top_k: how many of the likeliest tokens take part; 0 turns it off.
    top_p: their joint probability, the token that crosses it included; 1 turns it off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        checked = {
            "temperature": check_number(
                "temperature", self.temperature, 0, wanted="0 (greedy) or above"
            ),
            "top_k": check_integer(
                "top_k", self.top_k, 0, MAX_TOP_K, wanted="0 (off) or a positive integer"
            ),
            "top_p": check_number("top_p", self.top_p, 0, 1, wanted="0 to 1 (off)"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def with_overrides(
        self, temperature: float | None = None, top_k: int | None = None, top_p: float | None = None
    ) -> SamplingParams:
        """Replaces what is not None. 0 is a value here, unlike in the original."""
        given: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        return dataclasses.replace(self, **{k: v for k, v in given.items() if v is not None})

    def to_arrays(self) -> SamplingArrays:
        return SamplingArrays(
            np.float32(self.temperature), np.int32(self.top_k), np.float32(self.top_p)
        )


class SamplingArrays(NamedTuple):
    """`SamplingParams` as arrays: float32[], int32[], float32[]."""

    temperature: jax.Array | np.float32
    top_k: jax.Array | np.int32
    top_p: jax.Array | np.float32


# The original's defaults (`rudolph.api.ruDolphApi`).
TEXT_SAMPLING = SamplingParams(temperature=0.9, top_k=64, top_p=0.8)
IMAGE_SAMPLING = SamplingParams(temperature=1.0, top_k=768, top_p=0.99)


def sample(keys: jax.Array, logits: jax.Array, sampling: SamplingArrays) -> jax.Array:
    """Samples a token of each row, float32[B, V] -> int32[B]. keys: key[B]."""
    logits = filter_logits(apply_temperature(logits, sampling), sampling)
    return sample_categorical(keys, logits, sampling)


def guided_sample(
    keys: jax.Array,
    logits: jax.Array,
    unconditional: jax.Array,
    weight: jax.Array,
    sampling: SamplingArrays,
    on_logits: bool,
) -> jax.Array:
    """Samples from two predictions, float32[B, V] each, weighted (1 - weight) and weight.

    weight: below 0 leads away from the unconditional prediction; a probability that becomes
        negative then counts as 0.
    on_logits: mix filtered logits, where both keep a token (the original's `late_softmax`);
        else mix probabilities.
    """
    scaled = apply_temperature(jnp.stack([logits, unconditional]), sampling)
    kept = filter_logits(scaled, sampling)
    if on_logits:
        # Guidance away from a prediction must not exclude what that prediction excludes.
        mixed = (1 - weight) * scaled[0] + weight * scaled[1]
        common = jnp.isfinite(kept[0]) & (jnp.isfinite(kept[1]) | (weight <= 0))
        nothing = ~common.any(axis=-1, keepdims=True)
        return sample_categorical(keys, jnp.where(common | nothing, mixed, -jnp.inf), sampling)
    probabilities = jax.nn.softmax(kept, axis=-1)
    mixed = (1 - weight) * probabilities[0] + weight * probabilities[1]
    return sample_categorical(keys, jnp.log(jnp.maximum(mixed, 0.0)), sampling)


def apply_temperature(logits: jax.Array, sampling: SamplingArrays) -> jax.Array:
    greedy = sampling.temperature == 0
    return logits.astype(jnp.float32) / jnp.where(greedy, 1.0, sampling.temperature)


def filter_logits(logits: jax.Array, sampling: SamplingArrays) -> jax.Array:
    """Sets logits float32[..., V] to -inf where top-k or top-p drops a token.

    Tokens that tie with the last one kept are kept too.
    Source: `transformers.top_k_top_p_filtering`.
    """
    order = _ordered_bits(logits)

    def count_reaches_k() -> Holds:
        return lambda kept: kept.sum(axis=-1) >= sampling.top_k

    def sum_exceeds_p() -> Holds:
        left = jnp.where(order >= floor[..., None], logits, -jnp.inf)
        probabilities = jax.nn.softmax(left, axis=-1)
        return lambda kept: (probabilities * kept).sum(axis=-1) > sampling.top_p

    limited = jnp.greater(sampling.top_k, 0) & jnp.less(sampling.top_k, logits.shape[-1])
    floor = largest_threshold(order, count_reaches_k, limited)
    floor = jnp.maximum(floor, largest_threshold(order, sum_exceeds_p, jnp.less(sampling.top_p, 1)))
    return jnp.where(order >= floor[..., None], logits, -jnp.inf)


def sample_categorical(keys: jax.Array, logits: jax.Array, sampling: SamplingArrays) -> jax.Array:
    """Samples int32[B] from logits float32[B, V] by the Gumbel trick; argmax at temperature 0."""
    V = logits.shape[-1]
    noise = jax.vmap(lambda key: jax.random.gumbel(key, (V,), jnp.float32))(keys)
    noise = jnp.where(sampling.temperature == 0, 0.0, noise)
    return jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)


def _ordered_bits(x: jax.Array) -> jax.Array:
    """Maps float32 to uint32 of the same order."""
    x = jnp.where(x == 0, 0.0, x.astype(jnp.float32))  # -0.0 ties with 0.0
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    sign = jnp.uint32(1 << 31)
    return jnp.where(bits & sign, ~bits, bits | sign)
