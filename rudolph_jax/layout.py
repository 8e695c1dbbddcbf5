"""Offsets of a sequence's segments and of the vocabulary; no other file does this arithmetic.

A sequence of input ids is [left text | image codes | right text]. Text ids count

    0 .. text_vocab_size - 1            BPE pieces, the first four PAD, UNK, BOS, EOS
    .. + text_special_tokens - 1        special tokens, the first of them named in SPECIAL_TOKENS
    .. + left_text_length - 1           padding of the left text, an id for each position

and image ids the codes, then special tokens. Logits have the text ids first, then the image ids.
Source: `rudolph.model.model` and `rudolph.api`.
"""

from __future__ import annotations

import dataclasses

from clip_jax.config_fields import short_repr
from clip_jax.errors import InputError
from rudolph_jax.config import RudolphConfig

PAD, UNK, BOS, EOS = 0, 1, 2, 3

# In the order of their ids. The first six are RUDOLPH's, the others those of its FBC2 version.
SPECIAL_TOKENS = (
    "LT_UNK", "RT_UNK", "LT_T2I", "LT_I2T", "LT_T2T", "RT_I2T",
    "LT_TQA", "RT_TQA", "LT_MQA", "RT_MQA", "LT_VQA", "RT_VQA", "LT_CAP", "RT_CAP", "LT_GEN",
    "LT_REC", "RT_REC",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layout:
    """Computes slices of input ids, and sizes, from a config."""

    config: RudolphConfig

    @property
    def image_length(self) -> int:
        return self.config.image_tokens_per_side**2

    @property
    def left(self) -> slice:
        return slice(0, self.config.left_text_length)

    @property
    def image(self) -> slice:
        return slice(self.left.stop, self.left.stop + self.image_length)

    @property
    def right(self) -> slice:
        return slice(self.image.stop, self.image.stop + self.config.right_text_length)

    @property
    def sequence_length(self) -> int:
        """Number of input ids of a whole sequence, which is the side of the masks."""
        return self.right.stop

    @property
    def num_prefix_tokens(self) -> int:
        """Number of positions before the first input id."""
        return int(self.config.bos_prefix)

    @property
    def num_text_ids(self) -> int:
        """Rows of the text table: pieces, special tokens, left pads."""
        return self.text_pad_offset + self.config.left_text_length

    @property
    def text_pad_offset(self) -> int:
        """The first text id after the special tokens: padding at the left text's position 0."""
        return self.config.text_vocab_size + self.config.text_special_tokens

    @property
    def num_image_ids(self) -> int:
        """Rows of the image table: codes, special tokens."""
        return self.config.image_vocab_size + self.config.image_special_tokens

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return self.num_text_ids + self.num_image_ids

    @property
    def text_logits(self) -> slice:
        return slice(0, self.num_text_ids)

    @property
    def image_logits(self) -> slice:
        return slice(self.num_text_ids, self.vocab_size)

    @property
    def code_logits(self) -> slice:
        """The image logits without those of special tokens."""
        return slice(self.num_text_ids, self.num_text_ids + self.config.image_vocab_size)

    def special_id(self, name: str) -> int:
        """Looks up a special token such as "LT_T2I"; InputError where the model has none."""
        if not isinstance(name, str) or name not in SPECIAL_TOKENS:
            known = ", ".join(SPECIAL_TOKENS)
            raise InputError(f"special_token is {short_repr(name)}; expected one of {known}")
        index = SPECIAL_TOKENS.index(name)
        if index >= self.config.text_special_tokens:
            raise InputError(
                f"special token {name} is number {index}; this model has only "
                f"{self.config.text_special_tokens}"
            )
        return self.config.text_vocab_size + index

    def segment_lengths(self, length: int) -> tuple[int, int, int]:
        """Counts left text, image and right text among the first `length` input ids."""
        if not 0 < length <= self.sequence_length:
            raise InputError(f"input_ids are {length} long; expected 1 to {self.sequence_length}")
        left = min(length, self.left.stop)
        image = min(length, self.image.stop) - left
        return left, image, length - left - image
