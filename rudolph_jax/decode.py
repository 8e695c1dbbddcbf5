"""Sampling with cached keys and values: one compiled program a shape, one loop on the device.

# G guidance streams (2 with guidance: conditional, unconditional; else 1), P distinct prompts,
# n samples of each, N tokens of the segment that is written, M tokens of a prompt, V choices

A prompt's keys and values are computed once and stored once for all of its samples; what the
samples add lies in a cache of its own. Layers run one by one from parameters as they lie in a
model folder: slicing stacked ones in the loop would copy them.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from clip_jax.config import Compute
from clip_jax.errors import InputError
from rudolph_jax import forward
from rudolph_jax.config import RudolphConfig
from rudolph_jax.forward import KeyValues, Params
from rudolph_jax.layout import EOS, PAD, Layout
from rudolph_jax.masks import layer_kinds, mask
from rudolph_jax.sampling import Options, guided_sample, sample


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compiled for: everything else may change from call to call.

    segment: "left", "image" or "right", which is written. samples: of each prompt.
    guidance: "none", "probabilities" or "logits" (`sampling.guided_sample`).
    """

    config: RudolphConfig
    compute: Compute
    segment: str
    samples: int
    guidance: str = "none"

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
        return layout.text_logits if self.segment == "left" else slice(0, layout.special_stop)


class Request(NamedTuple):
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


@partial(jax.jit, static_argnums=0)
def generate(plan: Plan, params: Params, request: Request) -> jax.Array:
    """int32[P * n, N]: the segment of each sample, the samples of a prompt side by side.

    params: layers one by one. Text ends with EOS, then PAD. The first `start` prompt ids that lie
    in the segment stand at its begin.
    """
    written, choose = plan.written, partial(_choose, plan, request)
    P, N = request.fixed.shape
    rows, first = P * plan.samples, request.start - written.start
    head = forward.head(plan.config, plan.compute, params, plan.columns)
    prompt_cache, last = _read_prompts(plan, params, request)
    hidden = jnp.repeat(last, plan.samples, axis=0)  # G P n
    fixed = jnp.repeat(request.fixed, plan.samples, axis=0)
    out = jnp.full((rows, N), PAD, jnp.int32)
    if plan.segment != "image":
        given = jnp.repeat(request.prompts[0, :, written], plan.samples, axis=0)
        out = jnp.where(jnp.arange(N) < first, given, out)
    done = jnp.zeros((rows,), bool)
    token, done = choose(head(hidden), fixed, first, done)
    out = out.at[:, first].set(token)

    def step(carry: tuple) -> tuple:
        place, token, done, out, cache = carry
        hidden, cache = _advance(plan, params, request, prompt_cache, cache, token, place)
        token, done = choose(head(hidden), fixed, place + 1, done)
        return place + 1, token, done, out.at[:, place + 1].set(token), cache

    cache = _empty_cache(plan, len(hidden), N, hidden.dtype)
    carry = first, token, done, out, cache
    if plan.segment == "image":
        # A trip count that is known needs no look at the device between steps.
        carry = lax.fori_loop(0, N - 1, lambda _, carry: step(carry), carry)
    else:
        carry = lax.while_loop(lambda c: (c[0] < request.stop - 1) & ~c[2].all(), step, carry)
    return jnp.where(jnp.arange(N) < request.stop, carry[3], PAD)


def _read_prompts(plan: Plan, params: Params, request: Request) -> tuple[KeyValues, jax.Array]:
    """Keys and values [G P, M, H, K], and the hidden states [G P, D] before the first token."""
    ids = request.prompts.reshape(-1, request.prompts.shape[-1])
    x, key_values = forward.run(plan.config, plan.compute, params, ids)
    before = request.start + Layout(plan.config).prefix - 1
    return key_values, lax.dynamic_index_in_dim(x, before, axis=1, keepdims=False)


def _choose(
    plan: Plan,
    request: Request,
    logits: jax.Array,
    fixed: jax.Array,
    place: jax.Array,
    done: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The tokens int32[P n] at a place of the segment, and which samples are done by then.

    logits: float32[G P n, V]. fixed: int32[P n, N].
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
    given = lax.dynamic_index_in_dim(fixed, place, axis=1, keepdims=False)
    token = jnp.where(given >= 0, given, token)
    if plan.segment == "image":
        return token, done
    return jnp.where(done, PAD, token), done | (token == EOS)


def _advance(
    plan: Plan,
    params: Params,
    request: Request,
    prompt_cache: KeyValues,
    cache: KeyValues,
    token: jax.Array,
    place: jax.Array,
) -> tuple[jax.Array, KeyValues]:
    """Takes the tokens int32[P n] at a place in: hidden states float[G P n, D], the next cache."""
    config, written = plan.config, plan.written
    layout = Layout(config)
    tokens = jnp.tile(token, len(request.prompts))[:, None]
    method = f"embed_{plan.segment}"
    x = forward.embed(config, plan.compute, params, tokens, place[None], method=method)
    # Where this token, the prompt and the segment lie among the positions that masks know.
    position = written.start + layout.prefix + place
    prompt = jnp.arange(prompt_cache[0][0].shape[1])
    slots = jnp.arange(cache[0][0].shape[1])
    first = request.start - written.start
    alone, new_cache = jnp.ones((1, 1), bool), []
    for layer, kind in enumerate(layer_kinds(config)):
        allowed = jnp.asarray(mask(config, kind))[position]
        in_prompt = allowed[: len(prompt)] & (prompt < request.start + layout.prefix)
        # The slot of the last token is never read, and may lie past the mask's end.
        in_segment = jnp.pad(allowed[written.start + layout.prefix :], (0, layout.prefix))
        in_segment = in_segment[: len(slots)] & (slots >= first) & (slots < place)
        past = [(*prompt_cache[layer], in_prompt), (*cache[layer], in_segment)]
        x, (k, v) = forward.block(config, params, layer, x, alone, past)
        keys, values = cache[layer]
        new_cache.append((keys.at[:, place].set(k[:, 0]), values.at[:, place].set(v[:, 0])))
    return x[:, 0], new_cache


def _empty_cache(plan: Plan, rows: int, length: int, dtype: jnp.dtype) -> KeyValues:
    config = plan.config
    zeros = jnp.zeros((rows, length, config.heads, config.width // config.heads), dtype)
    return [(zeros, zeros) for _ in range(config.layers)]
