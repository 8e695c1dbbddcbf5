"""Sampling with a key-value cache: one compiled program for each shape, one loop on the device.

# G guidance streams (2 with guidance: conditional, unconditional; else 1), P distinct prompts,
# n samples of each, N tokens of the sampled segment, M tokens of a prompt, V choices

A prompt's keys and values are computed and stored once for all of its samples; those of sampled
tokens have a cache of their own, which keeps only the keys that masks still allow
(`cache_window.py`).
Layers are unrolled over unstacked parameters: slicing stacked ones in the loop would copy them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from clip_jax.config import Compute
from clip_jax.errors import InputError
from rudolph_jax import gpu_loop, incremental
from rudolph_jax.cache import LayerCache, empty_cache
from rudolph_jax.cache_window import CacheWindow, cache_window
from rudolph_jax.config import RudolphConfig
from rudolph_jax.incremental import KeyValues, Params
from rudolph_jax.layout import EOS, PAD, Layout
from rudolph_jax.masks import layer_mask_types, mask
from rudolph_jax.sampling import SamplingArrays, guided_sample, sample


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """Settings that a program is compiled for; everything else may change from call to call.

    segment: the segment to sample, "left", "image" or "right".
    samples: number of samples of each prompt.
    guidance: "none", "probabilities" or "logits" (`sampling.guided_sample`).
    windowed_cache: keep only the keys that a layer's mask allows later queries (`cache_window.py`);
        off, all of the segment's, which gives the same and takes longer.
    """

    config: RudolphConfig
    compute: Compute
    segment: str
    samples: int
    guidance: str = "none"
    windowed_cache: bool = True

    def __post_init__(self) -> None:
        if self.segment not in ("left", "image", "right"):
            raise InputError(f"segment is {self.segment!r}; expected left, image or right")
        if self.guidance not in ("none", "probabilities", "logits"):
            raise InputError(
                f"guidance is {self.guidance!r}; expected none, probabilities or logits"
            )
        if self.samples < 1:
            raise InputError(f"samples is {self.samples}; expected at least 1")
        if self.segment == "right" and not self.config.right_text_length:
            raise InputError("this model has no right text to sample")

    @property
    def target_slice(self) -> slice:
        """Slice of the input ids that are sampled."""
        return getattr(Layout(self.config), self.segment)

    @property
    def prompt_length(self) -> int:
        """M: prompts end with the sampled segment, or before it if that is the image."""
        layout = Layout(self.config)
        return layout.left.stop if self.segment == "image" else self.target_slice.stop

    @property
    def logit_slice(self) -> slice:
        """Slice of the logits; those of special tokens and pads in a text count as EOS."""
        layout = Layout(self.config)
        if self.segment == "image":
            return layout.code_logits
        return layout.text_logits if self.segment == "left" else slice(0, layout.text_pad_offset)

    def window(self, mask_type: str) -> CacheWindow:
        """Returns the cache window of layers with this mask."""
        return cache_window(self.config, mask_type, self.segment, self.windowed_cache)


class SamplerInputs(NamedTuple):
    """Arrays that a compiled program is called with.

    prompts: int32[G, P, M].
    start: int32[], number of ids of a prompt that are read.
    stop: int32[], largest number of tokens of a text segment, its prompt included.
    forced_tokens: int32[P, N], tokens given at their positions in the segment, -1 where to sample.
    allowed_tokens: bool[V] or bool[1], which tokens may be chosen.
    keys: key[P * n], one a sample, which alone decides its random numbers, whatever the batch or
        the devices.
    sampling, guidance_weight: see `sampling.py`.
    """

    prompts: jax.Array
    start: jax.Array
    stop: jax.Array
    forced_tokens: jax.Array
    allowed_tokens: jax.Array
    keys: jax.Array
    sampling: SamplingArrays
    guidance_weight: jax.Array


class SamplingState(NamedTuple):
    """Carry of the loop.

    position: int32[], of the last token in the segment.
    token: int32[P * n], the last token of each sample.
    done: bool[P * n], which samples have ended.
    tokens: int32[P * n, N], all tokens so far.
    cache: of each layer, keys and values [G P n, H, S, K] of sampled tokens (`cache.py`).
    """

    position: jax.Array
    token: jax.Array
    done: jax.Array
    tokens: jax.Array
    cache: KeyValues


def _generate(sampler: SamplerConfig, params: Params, inputs: SamplerInputs) -> jax.Array:
    """Samples the segment: int32[P * n, N], the samples of a prompt consecutive.

    params: layers unstacked. Text ends with EOS, then PAD. Prompt ids in the segment come first.
    """
    params = incremental.cast_params(params, sampler.compute)
    prompt_cache, state = prefill(sampler, params, inputs)
    N = state.tokens.shape[1]
    state = sample_loop(sampler, params, inputs, prompt_cache, state, N - 1)
    return jnp.where(jnp.arange(N) < inputs.stop, state.tokens, PAD)


generate = jax.jit(_generate, static_argnums=0)
_generate_in_graph = jax.jit(_generate, static_argnums=0, compiler_options=gpu_loop.OPTIONS)


def generate_on_device(
    sampler: SamplerConfig, params: Params, inputs: SamplerInputs
) -> jax.Array:
    """Runs `generate` with the compiler options of the platform (`gpu_loop.py`)."""
    run = _generate_in_graph if gpu_loop.in_use() else generate
    return run(sampler, params, inputs)


def prefill(
    sampler: SamplerConfig, params: Params, inputs: SamplerInputs
) -> tuple[KeyValues, SamplingState]:
    """Computes the prompts' keys and values [G P, H, M, K] and samples the first token."""
    target = sampler.target_slice
    P, N = inputs.forced_tokens.shape
    rows, first = P * sampler.samples, inputs.start - target.start
    prompt_cache, last = _prefill_prompts(sampler, params, inputs)
    hidden = jnp.repeat(last, sampler.samples, axis=0)  # G P n
    tokens = jnp.full((rows, N), PAD, jnp.int32)
    if sampler.segment != "image":
        given = jnp.repeat(inputs.prompts[0, :, target], sampler.samples, axis=0)
        tokens = jnp.where(jnp.arange(N) < first, given, tokens)
    logits_fn = _logits_fn(sampler, params)
    token, done = _sample_token(
        sampler, inputs, _keys_at(inputs, first), logits_fn(hidden), first, jnp.zeros(rows, bool)
    )
    cache = _empty_cache(sampler, len(hidden), hidden.dtype)
    tokens = lax.dynamic_update_slice_in_dim(tokens, token[:, None], first, axis=1)
    return prompt_cache, SamplingState(first, token, done, tokens, cache)


def sample_loop(
    sampler: SamplerConfig,
    params: Params,
    inputs: SamplerInputs,
    prompt_cache: KeyValues,
    state: SamplingState,
    count: int,
) -> SamplingState:
    """Samples `count` more tokens of an image; of a text up to its limit, until all have ended."""
    logits_fn = _logits_fn(sampler, params)
    # Derived in the loop, keys would take some ten launches a step.
    keys = jax.vmap(_keys_at, (None, 0))(inputs, jnp.arange(state.tokens.shape[1]))

    def step(state: SamplingState) -> SamplingState:
        hidden, cache = decode_step(sampler, params, inputs, prompt_cache, state)
        position = state.position + 1
        token, done = _sample_token(
            sampler, inputs, keys[position], logits_fn(hidden), position, state.done
        )
        tokens = lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], position, axis=1)
        return SamplingState(position, token, done, tokens, cache)

    if sampler.segment == "image":
        # With a static trip count no step waits for the device.
        return lax.fori_loop(0, count, lambda _, state: step(state), state)
    return lax.while_loop(lambda s: (s.position < inputs.stop - 1) & ~s.done.all(), step, state)


def _prefill_prompts(
    sampler: SamplerConfig, params: Params, inputs: SamplerInputs
) -> tuple[KeyValues, jax.Array]:
    """Computes keys and values [G P, H, M, K], and the hidden states of the last ids [G P, D]."""
    ids = inputs.prompts.reshape(-1, inputs.prompts.shape[-1])
    x, key_values = incremental.forward_with_cache(sampler.config, sampler.compute, params, ids)
    last = inputs.start + Layout(sampler.config).num_prefix_tokens - 1
    return key_values, lax.dynamic_index_in_dim(x, last, axis=1, keepdims=False)


def _keys_at(inputs: SamplerInputs, position: jax.Array) -> jax.Array:
    """Derives the keys key[P n] of a position of the segment."""
    return jax.vmap(jax.random.fold_in, (0, None))(inputs.keys, position)


def _sample_token(
    sampler: SamplerConfig,
    inputs: SamplerInputs,
    keys: jax.Array,
    logits: jax.Array,
    position: jax.Array,
    done: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Samples tokens int32[P n] at a position of the segment, and updates which samples have ended.

    keys: key[P n], `_keys_at` this position. logits: float32[G P n, V]. done: bool[P n].
    """
    logits = jnp.where(inputs.allowed_tokens, logits, -jnp.inf)
    if sampler.guidance == "none":
        token = sample(keys, logits, inputs.sampling)
    else:
        conditional, unconditional = jnp.split(logits, 2)
        token = guided_sample(
            keys, conditional, unconditional, inputs.guidance_weight, inputs.sampling,
            on_logits=sampler.guidance == "logits",
        )  # fmt: skip
    if sampler.segment != "image":
        # Special tokens and pads end a text, the first of them (id `text_vocab_size`) too.
        token = jnp.where(token >= sampler.config.text_vocab_size, EOS, token)
    forced = lax.dynamic_index_in_dim(inputs.forced_tokens, position, axis=1, keepdims=False)
    forced = jnp.repeat(forced, sampler.samples)
    token = jnp.where(forced >= 0, forced, token)
    if sampler.segment == "image":
        return token, done
    return jnp.where(done, PAD, token), done | (token == EOS)


def decode_step(
    sampler: SamplerConfig,
    params: Params,
    inputs: SamplerInputs,
    prompt_cache: KeyValues,
    state: SamplingState,
) -> tuple[jax.Array, KeyValues]:
    """Runs the last tokens through the layers: hidden states float[G P n, D], the next cache."""
    config, position = sampler.config, state.position
    tokens = jnp.tile(state.token, len(inputs.prompts))[:, None]
    method = f"embed_{sampler.segment}"
    x = incremental.apply_embedding(
        config, sampler.compute, params, tokens, position[None], method=method
    )
    # Once for all layers with a mask: their kernels would be launched in each layer.
    mask_types = layer_mask_types(config)
    first, M = inputs.start - sampler.target_slice.start, prompt_cache[0][0].shape[2]
    in_prompt, windows = {}, {}
    for mask_type in dict.fromkeys(mask_types):
        in_prompt[mask_type] = prompt_mask(sampler, mask_type, inputs.start, position, M)
        windows[mask_type] = sampler.window(mask_type).at(position, first)
    past, caches = [], []
    for layer, mask_type in enumerate(mask_types):
        past.append([(*prompt_cache[layer], in_prompt[mask_type])])
        caches.append(LayerCache(state.cache[layer], windows[mask_type]))
    x, cache = incremental.run_layers(config, params, x, None, past, caches)
    return x[:, 0], cache


def prompt_mask(
    sampler: SamplerConfig, mask_type: str, start: jax.Array, position: jax.Array, M: int
) -> jax.Array:
    """Computes which keys of the prompt the token at a position attends to, bool[M].

    Keys from `start` on are padding, or those of sampled tokens, which have their own cache.
    """
    prefix, target = Layout(sampler.config).num_prefix_tokens, sampler.target_slice
    keys, begin = np.arange(M), target.start + prefix
    known = jnp.asarray(keys) < start + prefix
    rows = mask(sampler.config, mask_type)[begin : target.stop, :M]
    before_query = keys < begin + np.arange(len(rows))[:, None]
    if rows[before_query].all():  # text and, without a prefix, images attend to all of it
        return known
    row = lax.dynamic_index_in_dim(
        jnp.asarray(rows), position, keepdims=False, allow_negative_indices=False
    )
    return row & known


def _logits_fn(sampler: SamplerConfig, params: Params) -> Callable[[jax.Array], jax.Array]:
    return incremental.make_logits_fn(sampler.config, sampler.compute, params, sampler.logit_slice)


def _empty_cache(sampler: SamplerConfig, batch: int, dtype: jnp.dtype) -> KeyValues:
    H, K = sampler.config.heads, sampler.config.width // sampler.config.heads
    windows = [sampler.window(mask_type) for mask_type in layer_mask_types(sampler.config)]
    return [empty_cache(batch, H, window.num_slots, K, dtype) for window in windows]
