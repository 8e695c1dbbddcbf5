"""How surprised the model is by texts and images, and how candidates are ranked by it.

# B sequences, P distinct prompts (B a multiple of P), T tokens

Source: `rudolph.api.ruDolphApi`, whose perplexity is the mean of exp(cross-entropy) over tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from clip_jax.batch_padding import bucket_size, pad_batch
from clip_jax.config import Compute
from rudolph_jax import incremental
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import PAD, Layout


def perplexities(
    config: RudolphConfig,
    compute: Compute,
    params: incremental.Params,
    prompt: np.ndarray,
    rest: np.ndarray,
    segments: tuple[str, ...],
    *,
    batch_size: int,
    quiet: bool = True,
) -> dict[str, np.ndarray]:
    """{segment: float32[B]} for each of `segments`, which must lie whole within `rest`.

    prompt: int32[M], what comes before each row of rest: int32[B, T]; it is read once for all.
    The first token of a segment is not judged, nor is padding in a text.
    """
    past = _read(config, compute, params, prompt[None]) if len(prompt) else None
    parts: dict[str, list[np.ndarray]] = {segment: [] for segment in segments}
    batch_size = min(batch_size, bucket_size(max(len(rest), 1)))
    with tqdm(total=len(rest), unit=" ranked", disable=True if quiet else None, leave=False) as bar:
        for start in range(0, len(rest), batch_size):
            chunk = rest[start : start + batch_size]
            batch = pad_batch(chunk, batch_size)
            found = _perplexities(config, compute, len(prompt), segments, params, past, batch)
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
    rest: np.ndarray,
    segment: str,
    *,
    batch_size: int,
) -> np.ndarray:
    """float32[P, B]: of the segment in each row of rest, int32[B, T], after each prompt.

    prompts: int32[P, M], each read once. batch_size: rows at once, of as many prompts as have room.
    """
    each = min(bucket_size(len(rest)), batch_size)
    group = min(bucket_size(max(len(prompts), 1)), max(batch_size // each, 1))
    found = np.zeros((len(prompts), len(rest)), np.float32)
    for first in range(0, len(prompts), group):
        some = prompts[first : first + group]
        past = _read(config, compute, params, pad_batch(some, group))
        for start in range(0, len(rest), each):
            chunk = rest[start : start + each]
            batch = np.tile(pad_batch(chunk, each), (group, 1))
            values = _perplexities(
                config, compute, prompts.shape[1], (segment,), params, past, batch
            )[segment]
            values = np.asarray(values).reshape(group, each)[: len(some), : len(chunk)]
            found[first : first + group, start : start + each] = values
    return found


def mean_exponential(cross_entropy: jax.Array) -> jax.Array:
    """float32[B, T] -> float32[B]: the original's `ce_to_ppl`, which skips zeros.

    A row of zeros alone has perplexity 1, the least there is; the original fails on it.
    """
    judged = cross_entropy != 0
    total = jnp.where(judged, jnp.exp(cross_entropy), 0.0).sum(axis=1)
    count = judged.sum(axis=1)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), 1.0)


def combined_scores(
    text: np.ndarray, image: np.ndarray, text_weight: float, quantile: float = 0.5
) -> np.ndarray:
    """float32[B], low is good: both perplexities over their spread, weighted and added.

    The spread is from the least value to the quantile. Where that is zero, as for one candidate
    or many equal ones, the original divides by it; here the whole range stands in, and equal
    values score 0.
    """

    def spread(values: np.ndarray) -> np.ndarray:
        above = values - values.min()
        width = np.quantile(above, quantile) or above.max()
        return above / width if width else np.zeros_like(above)

    if not len(text):
        return np.zeros((0,), np.float32)
    mixed = spread(text) * text_weight + spread(image) * (1 - text_weight)
    return mixed.astype(np.float32)


@partial(jax.jit, static_argnums=(0, 1))
def _read(
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
    past: incremental.KeyValues | None,
    rest: jax.Array,
) -> dict[str, jax.Array]:
    layout = Layout(config)
    x, _ = incremental.forward_with_cache(config, compute, params, rest, start, past)
    shift = layout.num_prefix_tokens if not start else 0
    found = {}
    for segment in segments:
        place = getattr(layout, segment)
        labels = rest[:, place.start - start + 1 : place.stop - start]
        hidden = x[:, place.start - start + shift : place.stop - start - 1 + shift]
        columns = layout.code_logits if segment == "image" else slice(0, layout.text_pad_offset)
        logits = incremental.make_logits_fn(config, compute, params, columns)(hidden)
        chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
        cross_entropy = jax.nn.logsumexp(logits, axis=-1) - chosen
        if segment != "image":
            cross_entropy = jnp.where(labels == PAD, 0.0, cross_entropy)
        found[segment] = mean_exponential(cross_entropy)
    return found
