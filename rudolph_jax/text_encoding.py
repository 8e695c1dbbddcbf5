"""Encoding of texts to the ids of a segment, and back.

A segment of text is [BOS, special token, pieces..., EOS, PAD...]; models without special tokens
(350M_v1, ruDALL-E) leave theirs out. Source: `rudolph.api.ruDolphApi.encode_text`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np

from clip_jax.arguments import check_text
from clip_jax.errors import InputError
from clip_jax.tokenizer import Tokenizer
from rudolph_jax.config import RudolphConfig
from rudolph_jax.layout import BOS, EOS, PAD, UNK, Layout


class TruncationWarning(UserWarning):
    """A text did not fit its segment."""


def encode_text(
    tokenizer: Tokenizer, text: str, length: int, special_id: int | None, context: str = ""
) -> tuple[np.ndarray, str]:
    """Encodes a text: int32[length], and the truncated rest of the text or context, or "".

    Both are made lower case and stripped. A text that is too long fills the segment, without an
    EOS, as in the original.
    context: precedes the text, and is truncated first: the original cuts the end of both together,
        which is the question.
    """
    check_text("text", text)
    check_text("context", context)
    prefix = [BOS] if special_id is None else [BOS, special_id]
    # No piece spans words, so these are the pieces of both with a space between them.
    before, pieces = (tokenizer.encode(string.lower().strip()) for string in (context, text))
    room = max(length - len(prefix) - len(pieces) - 1, 0)
    encoded = [*prefix, *before[:room], *pieces, EOS][:length]
    ids = np.full(length, PAD, np.int32)
    ids[: len(encoded)] = encoded
    return ids, tokenizer.decode(before[room:] + pieces[max(length - len(prefix), 0) :])


def encode_left(
    tokenizer: Tokenizer, config: RudolphConfig, text: str, special_token: str, context: str = ""
) -> np.ndarray:
    """Encodes int32[left_text_length]; warns (TruncationWarning) of a text that is truncated.

    special_token: such as "LT_T2I"; not used where the model has none. There an empty left text
    is all padding, as those models were trained.
    """
    check_text("text", text)
    check_text("context", context)
    if not config.text_special_tokens and not (text.strip() or context.strip()):
        return np.full(config.left_text_length, PAD, np.int32)
    length = config.left_text_length
    return _encode(tokenizer, config, text, length, special_token, "left", context)


def truncated_left_text(tokenizer: Tokenizer, config: RudolphConfig, text: str) -> str:
    """Returns the end of a left text that does not fit the segment; "" where all of it fits."""
    special = 0 if config.text_special_tokens else None
    return encode_text(tokenizer, text, config.left_text_length, special)[1]


def encode_right(
    tokenizer: Tokenizer, config: RudolphConfig, text: str, special_token: str
) -> np.ndarray:
    """Encodes int32[right_text_length]; warns (TruncationWarning) of a text that is truncated."""
    if not config.right_text_length:
        raise InputError("this model has no right text")
    return _encode(tokenizer, config, text, config.right_text_length, special_token, "right")


def decode_text(tokenizer: Tokenizer, ids: Sequence[int] | np.ndarray) -> str:
    """Decodes ids before the first EOS, without special tokens, padding and unknown pieces."""
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
    ids, truncated = encode_text(tokenizer, text, length, special, context)
    if truncated:
        warnings.warn(
            f"the text is longer than the {length} tokens of the {segment} segment; "
            f"this part of it is truncated: «{truncated}»",
            TruncationWarning,
            stacklevel=4,
        )
    return ids
