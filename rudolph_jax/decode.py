"""Sampling with cached keys and values: one compiled program a shape, one loop on the device.

# G guidance streams (2 with guidance: conditional, unconditional; else 1), P distinct prompts,
# n samples of each, N tokens of the sampled segment, M tokens of a prompt, V choices

A prompt's keys and values are computed and stored once for all of its samples; those of sampled
tokens have a cache of their own, which keeps only what masks can still see (`cache_window.py`).
Layers are unrolled over unstacked parameters: slicing stacked ones in the loop would copy them.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax.config import Compute
from clip_jax.errors import InputError
from rudolph_jax import incremental
from rudolph_jax.cache import LayerCache, empty
from rudolph_jax.cache_window import Window, window
from rudolph_jax.config import RudolphConfig
from rudolph_jax.incremental import KeyValues, Params
from rudolph_jax.layout import EOS, PAD, Layout
from rudolph_jax.masks import layer_kinds, mask
from rudolph_jax.sampling import Options, guided_sample, sample

Arrays = TypeVar("Arrays")  # a tree of them


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """States what is compiled for: everything else may change from call to call.

    segment: "left", "image" or "right", which is sampled.
    samples: of each prompt.
    guidance: "none", "probabilities" or "logits" (`sampling.guided_sample`).
    trimmed: keep only the keys that a layer's mask can still see (`cache_window.py`); off, all of
        the segment's, which gives the same and takes longer.
    """

    config: RudolphConfig
    compute: Compute
    segment: str
    samples: int
    guidance: str = "none"
    trimmed: bool = True

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
            raise InputError("this model has no right text; it cannot write there")

    @property
    def written(self) -> slice:
        """The input ids that are written."""
        return getattr(Layout(self.config), self.segment)

    @property
    def prompt_length(self) -> int:
        """M: prompts end with the segment that is written, or before it if that is the image."""
        layout = Layout(self.config)
        return layout.left.stop if self.segment == "image" else self.written.stop

    @property
    def columns(self) -> slice:
        """The logits to choose from; in text their special tokens and pads stand for EOS."""
        layout = Layout(self.config)
        if self.segment == "image":
            return layout.code_logits
        return layout.text_logits if self.segment == "left" else slice(0, layout.text_pad_offset)

    def window(self, kind: str) -> Window:
        """What layers with a kind of mask keep of the segment."""
        return window(self.config, kind, self.segment, self.trimmed)


class SamplerInputs(NamedTuple):
    """prompts: int32[G, P, M], of which the first `start` ids (int32[]) count.

    stop: int32[], how many tokens of a text segment to write at most, its prompt included.
    fixed: int32[P, N], tokens that are given at their place in the segment, -1 where to sample.
    allowed: bool[V] or bool[1], which tokens may be chosen.
    keys: key[P * n], one a sample: its draws depend on nothing else, whatever the batch or the
        devices. options, guidance_weight: see `sampling.py`.
    """

    prompts: jax.Array
    start: jax.Array
    stop: jax.Array
    fixed: jax.Array
    allowed: jax.Array
    keys: jax.Array
    options: Options
    guidance_weight: jax.Array


class SamplingState(NamedTuple):
    """Carry of the loop.

    place: int32[], position of the last token in the segment.
    token: int32[P * n], the last token of each sample.
    done: bool[P * n], which samples have ended.
    out: int32[P * n, N], the tokens so far.
    cache: of each layer, keys and values [G P n, H, S, K] of sampled tokens (`cache.py`).
    """

    place: jax.Array
    token: jax.Array
    done: jax.Array
    out: jax.Array
    cache: KeyValues


@partial(jax.jit, static_argnums=0)
def generate(plan: SamplerConfig, params: Params, request: SamplerInputs) -> jax.Array:
    """Samples the segment: int32[P * n, N], the samples of a prompt side by side.

    params: layers unstacked. Text ends with EOS, then PAD. Prompt ids that are part of the segment
    are its first.
    """
    params = incremental.cast(params, plan.compute)
    prompt_cache, state = prefill(plan, params, request)
    N = state.out.shape[1]
    state = sample_loop(plan, params, request, prompt_cache, state, N - 1)
    return jnp.where(jnp.arange(N) < request.stop, state.out, PAD)


def prefill(
    plan: SamplerConfig, params: Params, request: SamplerInputs
) -> tuple[KeyValues, SamplingState]:
    """The prompts' keys and values [G P, H, M, K], and the state after the first token."""
    written = plan.written
    P, N = request.fixed.shape
    rows, first = P * plan.samples, request.start - written.start
    prompt_cache, last = _read_prompts(plan, params, request)
    hidden = jnp.repeat(last, plan.samples, axis=0)  # G P n
    out = jnp.full((rows, N), PAD, jnp.int32)
    if plan.segment != "image":
        given = jnp.repeat(request.prompts[0, :, written], plan.samples, axis=0)
        out = jnp.where(jnp.arange(N) < first, given, out)
    logits = incremental.head(plan.config, plan.compute, params, plan.columns)(hidden)
    token, done = _sample_token(plan, request, logits, first, jnp.zeros((rows,), bool))
    cache = _empty_cache(plan, len(hidden), hidden.dtype)
    return prompt_cache, SamplingState(
        first, token, done, _write_at(out, token[:, None], first, axis=1), cache
    )


def sample_loop(
    plan: SamplerConfig,
    params: Params,
    request: SamplerInputs,
    prompt_cache: KeyValues,
    state: SamplingState,
    count: int,
) -> SamplingState:
    """Samples `count` more tokens of an image; of a text up to its limit, until all have ended."""
    head = incremental.head(plan.config, plan.compute, params, plan.columns)

    def step(state: SamplingState) -> SamplingState:
        hidden, cache = decode_step(plan, params, request, prompt_cache, state)
        place = state.place + 1
        token, done = _sample_token(plan, request, head(hidden), place, state.done)
        return SamplingState(
            place, token, done, _write_at(state.out, token[:, None], place, axis=1), cache
        )

    if plan.segment == "image":
        # A trip count that is known needs no look at the device between steps.
        return lax.fori_loop(0, count, lambda _, state: step(state), state)
    return lax.while_loop(lambda s: (s.place < request.stop - 1) & ~s.done.all(), step, state)


def _write_at(old: Arrays, new: Arrays, place: jax.Array, axis: int) -> Arrays:
    """Arrays with others written into an axis from a place of it on."""
    return jax.tree.map(
        lambda a, b: lax.dynamic_update_slice_in_dim(a, b, place, axis=axis), old, new
    )


def _read_prompts(
    plan: SamplerConfig, params: Params, request: SamplerInputs
) -> tuple[KeyValues, jax.Array]:
    """Keys and values [G P, H, M, K], and the hidden states [G P, D] before the first token."""
    ids = request.prompts.reshape(-1, request.prompts.shape[-1])
    x, key_values = incremental.run(plan.config, plan.compute, params, ids)
    before = request.start + Layout(plan.config).prefix - 1
    return key_values, lax.dynamic_index_in_dim(x, before, axis=1, keepdims=False)


def _sample_token(
    plan: SamplerConfig,
    request: SamplerInputs,
    logits: jax.Array,
    place: jax.Array,
    done: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The tokens int32[P n] at a place of the segment, and which samples are done by then.

    logits: float32[G P n, V].
    """
    keys = jax.vmap(jax.random.fold_in, (0, None))(request.keys, place)
    logits = jnp.where(request.allowed, logits, -jnp.inf)
    if plan.guidance == "none":
        token = sample(keys, logits, request.options)
    else:
        conditional, unconditional = jnp.split(logits, 2)
        token = guided_sample(
            keys, conditional, unconditional, request.guidance_weight, request.options,
            on_logits=plan.guidance == "logits",
        )  # fmt: skip
    if plan.segment != "image":
        # Special tokens and pads end a text, the first of them (id `text_vocab_size`) too.
        token = jnp.where(token >= plan.config.text_vocab_size, EOS, token)
    given = lax.dynamic_index_in_dim(request.fixed, place, axis=1, keepdims=False)
    given = jnp.repeat(given, plan.samples)
    token = jnp.where(given >= 0, given, token)
    if plan.segment == "image":
        return token, done
    return jnp.where(done, PAD, token), done | (token == EOS)


def decode_step(
    plan: SamplerConfig,
    params: Params,
    request: SamplerInputs,
    prompt_cache: KeyValues,
    state: SamplingState,
) -> tuple[jax.Array, KeyValues]:
    """Takes the last tokens in: hidden states float[G P n, D], the next cache."""
    config, written, place = plan.config, plan.written, state.place
    layout = Layout(config)
    tokens = jnp.tile(state.token, len(request.prompts))[:, None]
    method = f"embed_{plan.segment}"
    x = incremental.embed(config, plan.compute, params, tokens, place[None], method=method)
    # Positions of this token and of the prompt in the masks.
    position = written.start + layout.prefix + place
    prompt = jnp.arange(prompt_cache[0][0].shape[2])
    first = request.start - written.start
    past, caches = [], []
    for layer, kind in enumerate(layer_kinds(config)):
        allowed = jnp.asarray(mask(config, kind))[position]
        in_prompt = allowed[: len(prompt)] & (prompt < request.start + layout.prefix)
        past.append([(*prompt_cache[layer], in_prompt)])
        caches.append(LayerCache(state.cache[layer], plan.window(kind), place, first))
    x, cache = incremental.run_layers(config, params, x, None, past, caches)
    return x[:, 0], cache


def _empty_cache(plan: SamplerConfig, batch: int, dtype: jnp.dtype) -> KeyValues:
    H, K = plan.config.heads, plan.config.width // plan.config.heads
    return [empty(batch, H, plan.window(kind).slots, K, dtype) for kind in layer_kinds(plan.config)]
