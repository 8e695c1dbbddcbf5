"""Padding of token ids to rows of one length."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from clip_jax.text import check_encodable


def pad_token_ids(
    encoded: Sequence[Sequence[int]], length: int, *, bos_id: int, eos_id: int, pad_id: int
) -> np.ndarray:
    """Makes int32[B, length]: BOS, the ids truncated to fit, EOS, then padding.

    Source: `ruclip.processor.RuCLIPProcessor.encode_text`; `clip.tokenize(truncate=True)` and the
    first ruCLIP's `get_text_batch` give the same.
    """
    rows = np.full((len(encoded), length), pad_id, np.int32)
    for row, ids in zip(rows, encoded, strict=True):
        truncated = ids[: length - 2]
        row[: len(truncated) + 2] = [bos_id, *truncated, eos_id]
    return rows


def check_texts(texts: Sequence[str]) -> None:
    """Raises InputError unless all texts are strings without surrogates."""
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"text is {type(text).__name__}; expected str")
        check_encodable(text)


def check_token_ids(ids: Any, vocab_size: int) -> list[int]:
    """Returns ids as a list of int; InputError for another type or an id that no piece has."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InputError(f"ids are of type {type(ids).__name__}; expected a list of integers")
    found = []
    for i in ids:
        try:
            found.append(operator.index(i))
        except TypeError as error:
            raise InputError(f"id is of type {type(i).__name__}; expected an integer") from error
        if not 0 <= found[-1] < vocab_size:
            raise InputError(f"id {found[-1]} is outside the vocabulary of {vocab_size} pieces")
    return found
