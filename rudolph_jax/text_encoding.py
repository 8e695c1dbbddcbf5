"""Texts to the ids of a segment and back.

A segment of text is [BOS, special token, pieces..., EOS, PAD...]; models without special tokens
(350M_v1, ruDALL-E) leave theirs out. Source: `rudolph.api.ruDolphApi.encode_text`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import BOS, EOS, PAD, UNK, Layout


class TruncationWarning(UserWarning):
    """A text did not fit its segment."""


def encode_text(
    tokenizer: Tokenizer, text: str, length: int, special_id: int | None, context: str = ""
) -> tuple[np.ndarray, str]:
    """int32[length], and what of the text, or of its context, found no room ("" where all did).

    Both are lowered and stripped. A text that is too long fills the segment, without an EOS, as in
    the original. context: stands before the text and leaves it its room: the original cuts the
    end of both together, which is the question.
    """
    for given in (text, context):
        if not isinstance(given, str):
            raise InputError(f"text is {type(given).__name__}; expected str")
    start = [BOS] if special_id is None else [BOS, special_id]
    # No piece spans words, so these are the pieces of both with a space between them.
    before, pieces = (tokenizer.encode(given.lower().strip()) for given in (context, text))
    room = max(length - len(start) - len(pieces) - 1, 0)
    whole = [*start, *before[:room], *pieces, EOS][:length]
    ids = np.full(length, PAD, np.int32)
    ids[: len(whole)] = whole
    return ids, tokenizer.decode(before[room:] + pieces[max(length - len(start), 0) :])


def encode_left(
    tokenizer: Tokenizer, config: RudolphConfig, text: str, special_token: str, context: str = ""
) -> np.ndarray:
    """int32[left_text_length]; a text or context that is cut gives a TruncationWarning.

    special_token: such as "LT_T2I"; not used where the model has none. There an empty left text
    is all padding, as those models were trained.
    """
    if not config.text_special_tokens and not (text.strip() or context.strip()):
        return np.full(config.left_text_length, PAD, np.int32)
    length = config.left_text_length
    return _encode(tokenizer, config, text, length, special_token, "left", context)


def lost_on_the_left(tokenizer: Tokenizer, config: RudolphConfig, text: str) -> str:
    """What of a left text finds no room, and so is not read; "" where all of it is."""
    special = 0 if config.text_special_tokens else None
    return encode_text(tokenizer, text, config.left_text_length, special)[1]


def encode_right(
    tokenizer: Tokenizer, config: RudolphConfig, text: str, special_token: str
) -> np.ndarray:
    """int32[right_text_length]; a text that is cut gives a TruncationWarning."""
    if not config.right_text_length:
        raise InputError("this model has no right text")
    return _encode(tokenizer, config, text, config.right_text_length, special_token, "right")


def decode_text(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """What stands before the first EOS, without special tokens, padding and unknown pieces."""
    kept = []
    for i in map(int, ids):
        if i == EOS:
            break
        if i not in (PAD, UNK, BOS) and i < tokenizer.vocab_size:
            kept.append(i)
    return tokenizer.decode(kept).strip()


def _encode(
    tokenizer: Tokenizer,
    config: RudolphConfig,
    text: str,
    length: int,
    special_token: str,
    segment: str,
    context: str = "",
) -> np.ndarray:
    special = Layout(config).special_id(special_token) if config.text_special_tokens else None
    ids, lost = encode_text(tokenizer, text, length, special, context)
    if lost:
        warnings.warn(
            f"the text is longer than the {length} tokens of the {segment} segment; "
            f"this part of it is lost: «{lost}»",
            TruncationWarning,
            stacklevel=4,
        )
    return ids
