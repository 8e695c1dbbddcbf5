"""Perplexities of texts and images, and scores of candidates from them.

# B sequences, P distinct prompts (B a multiple of P), T tokens

Source: `rudolph.api.ruDolphApi`, whose perplexity is the mean of exp(cross-entropy) over tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clip_jax.batch_padding import bucket_size, pad_batch
from clip_jax.config import Compute
from clip_jax.progress import progress_bar
from rudolph_jax import incremental
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import PAD, Layout


def perplexities(
    config: RudolphConfig,
    compute: Compute,
    params: incremental.Params,
    prompt: np.ndarray,
    continuations: np.ndarray,
    segments: tuple[str, ...],
    *,
    batch_size: int,
    quiet: bool = True,
) -> dict[str, np.ndarray]:
    """Computes {segment: float32[B]} for each of `segments`, all within `continuations`.

    prompt: int32[M], the ids before each continuation, int32[B, T]; prefilled once for all.
    The first token of a segment is not counted, nor is padding in a text.
    """
    past_key_values = _prefill(config, compute, params, prompt[None]) if len(prompt) else None
    parts: dict[str, list[np.ndarray]] = {segment: [] for segment in segments}
    batch_size = min(batch_size, bucket_size(max(len(continuations), 1)))
    with progress_bar(len(continuations), "ranked", quiet=quiet) as bar:
        for start in range(0, len(continuations), batch_size):
            chunk = continuations[start : start + batch_size]
            batch = pad_batch(chunk, batch_size)
            found = _perplexities(
                config, compute, len(prompt), segments, params, past_key_values, batch
            )
            for segment in segments:
                parts[segment].append(np.asarray(found[segment])[: len(chunk)])
            bar.update(len(chunk))
    empty = [np.zeros((0,), np.float32)]
    return {segment: np.concatenate(empty + values) for segment, values in parts.items()}


def perplexities_after_prompts(
    config: RudolphConfig,
    compute: Compute,
    params: incremental.Params,
    prompts: np.ndarray,
    continuations: np.ndarray,
    segment: str,
    *,
    batch_size: int,
) -> np.ndarray:
    """Computes float32[P, B], of the segment in each continuation, int32[B, T], of each prompt.

    prompts: int32[P, M], each prefilled once.
    batch_size: sequences at once, of as many prompts as fit.
    """
    per_prompt = min(bucket_size(len(continuations)), batch_size)
    group = min(bucket_size(max(len(prompts), 1)), max(batch_size // per_prompt, 1))
    found = np.zeros((len(prompts), len(continuations)), np.float32)
    for first in range(0, len(prompts), group):
        some = prompts[first : first + group]
        past_key_values = _prefill(config, compute, params, pad_batch(some, group))
        for start in range(0, len(continuations), per_prompt):
            chunk = continuations[start : start + per_prompt]
            batch = np.tile(pad_batch(chunk, per_prompt), (group, 1))
            values = _perplexities(
                config, compute, prompts.shape[1], (segment,), params, past_key_values, batch
            )[segment]
            values = np.asarray(values).reshape(group, per_prompt)[: len(some), : len(chunk)]
            found[first : first + group, start : start + per_prompt] = values
    return found


def mean_token_perplexity(cross_entropy: jax.Array) -> jax.Array:
    """Averages exp(cross-entropy) over tokens, float32[B, T] -> float32[B], skipping zeros.

    A sequence of zeros alone has perplexity 1, the least possible; the original fails on it.
    Source: `ce_to_ppl`.
    """
    counted = cross_entropy != 0
    total = jnp.where(counted, jnp.exp(cross_entropy), 0.0).sum(axis=1)
    count = counted.sum(axis=1)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), 1.0)


def combined_scores(
    text: np.ndarray, image: np.ndarray, text_weight: float, quantile: float = 0.5
) -> np.ndarray:
    """Combines perplexities to scores float32[B], low is good: a weighted sum of scaled values.

    Each is scaled by its spread, from the least value to the quantile. Where that is zero, as for
    one candidate or many equal ones, the original divides by it; here the whole range takes its
    place, and equal values score 0.
    """

    def scaled(values: np.ndarray) -> np.ndarray:
        above = values - values.min()
        width = np.quantile(above, quantile) or above.max()
        return above / width if width else np.zeros_like(above)

    if not len(text):
        return np.zeros((0,), np.float32)
    mixed = scaled(text) * text_weight + scaled(image) * (1 - text_weight)
    return mixed.astype(np.float32)


@partial(jax.jit, static_argnums=(0, 1))
def _prefill(
    config: RudolphConfig, compute: Compute, params: incremental.Params, prompts: Any
) -> incremental.KeyValues:
    return incremental.forward_with_cache(config, compute, params, prompts)[1]


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _perplexities(
    config: RudolphConfig,
    compute: Compute,
    start: int,
    segments: tuple[str, ...],
    params: incremental.Params,
    past_key_values: incremental.KeyValues | None,
    continuations: jax.Array,
) -> dict[str, jax.Array]:
    layout = Layout(config)
    x, _ = incremental.forward_with_cache(
        config, compute, params, continuations, start, past_key_values
    )
    shift = layout.num_prefix_tokens if not start else 0
    results = {}
    for segment in segments:
        target = getattr(layout, segment)
        labels = continuations[:, target.start - start + 1 : target.stop - start]
        hidden = x[:, target.start - start + shift : target.stop - start - 1 + shift]
        logit_slice = layout.code_logits if segment == "image" else slice(0, layout.text_pad_offset)
        logits = incremental.make_logits_fn(config, compute, params, logit_slice)(hidden)
        chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        cross_entropy = jax.nn.logsumexp(logits, axis=-1) - chosen
        if segment != "image":
            cross_entropy = jnp.where(labels == PAD, 0.0, cross_entropy)
        results[segment] = mean_token_perplexity(cross_entropy)
    return results
