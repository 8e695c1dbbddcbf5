"""Text generation: continuations of a text, ranked by perplexity.

Source: `rudolph.api.ruDolphApi.generate_texts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clip_jax.arguments import check_integer, check_text, check_text_list, describe
from clip_jax.errors import InputError
from rudolph_jax.generation import GenerationConfig, sample_batches
from rudolph_jax.layout import PAD, Layout
from rudolph_jax.perplexity import perplexities
from rudolph_jax.pretrained import PretrainedRudolph, check_rudolph
from rudolph_jax.sampling import TEXT_SAMPLING
from rudolph_jax.text_encoding import decode_text, encode_left


def generate_texts(
    rudolph: PretrainedRudolph,
    template: str = "",
    texts_num: int = 48,
    *,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    early_stop: int | None = None,
    allowed_token_ids: Sequence[int] | None = None,
    special_token: str = "LT_T2T",
    seed: int = 0,
    batch_size: int = 24,
    quiet: bool = False,
) -> list[dict[str, Any]]:
    """Samples texts that begin with the template; returns the distinct ones, best first.

    Each is {"text", "ppl_txt", "count"}.
    early_stop: largest number of tokens of a text, the template, BOS and special token included.
    allowed_token_ids: ids that may be chosen, EOS (3) only where it is among them.
    temperature, top_k, top_p: see `sampling.SamplingParams`; None: the original's 0.9, 64, 0.8.
    """
    check_rudolph(rudolph)
    texts_num = check_integer("texts_num", texts_num)
    check_text("template", template)
    tokenizer, config = rudolph.tokenizer, rudolph.config
    if early_stop is not None:
        early_stop = check_integer("early_stop", early_stop)
    prompt = encode_left(tokenizer, config, template, special_token)
    generation = GenerationConfig(
        TEXT_SAMPLING.with_overrides(temperature, top_k, top_p), seed, batch_size, quiet
    )
    drawn = sample_batches(
        rudolph, generation, "left", prompt[None, None], template_length(prompt), texts_num,
        stop=early_stop, allowed_tokens=_allowed_mask(rudolph, allowed_token_ids),
    )  # fmt: skip
    counts = Counter(decode_text(tokenizer, ids) for part in drawn for ids in part[0])
    counts.pop("", None)
    texts = list(counts)
    ppl = text_perplexities(rudolph, texts, special_token=special_token, batch_size=batch_size)
    return [
        {"text": texts[i], "ppl_txt": float(ppl[i]), "count": counts[texts[i]]}
        for i in np.argsort(ppl, kind="stable")
    ]


def text_perplexities(
    rudolph: PretrainedRudolph,
    texts: Sequence[str],
    *,
    special_token: str = "LT_T2T",
    batch_size: int = 24,
) -> np.ndarray:
    """Computes the perplexity of each as a left text, float32[texts]."""
    check_rudolph(rudolph)
    texts = check_text_list("texts", texts)
    batch_size = check_integer("batch_size", batch_size)
    if not texts:
        return np.zeros((0,), np.float32)
    rows = [encode_left(rudolph.tokenizer, rudolph.config, t, special_token) for t in texts]
    with rudolph.precision:
        return perplexities(
            rudolph.config, rudolph.compute, rudolph.inference_params, np.zeros((0,), np.int32),
            np.stack(rows), ("left",), batch_size=batch_size,
        )["left"]  # fmt: skip


def template_length(ids: np.ndarray) -> int:
    """Counts the ids of an encoded template without its EOS.

    At least one, the BOS, from which an all-padded left text is sampled too.
    """
    return max(int((ids != PAD).sum()) - 1, 1)


def _allowed_mask(rudolph: PretrainedRudolph, ids: Sequence[int] | None) -> np.ndarray | None:
    if ids is None:
        return None
    layout = Layout(rudolph.config)
    allowed = np.zeros(layout.num_text_ids, bool)
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InputError(f"allowed_token_ids are {describe(ids)}; expected a list of integers")
    wanted = f"0 to {layout.num_text_ids - 1}"
    for i in ids:
        try:
            allowed[check_integer("id", i, 0, layout.num_text_ids - 1)] = True
        except InputError as error:
            raise InputError(f"allowed_token_ids hold {describe(i)}; expected {wanted}") from error
    if not allowed.any():
        raise InputError("allowed_token_ids are empty; expected at least one id, or None")
    return allowed
