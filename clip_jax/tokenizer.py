"""Tokenizers of sentencepiece models; `byte_bpe.py` has the other kind.

A model converted from youtokentome gives exactly the original's ids: see
`converters/youtokentome.py`, which also names the special pieces as `decode` spells them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import sentencepiece

from clip_jax import byte_bpe
from clip_jax.arguments import check_flag, check_integer, check_path, check_text_list
from clip_jax.byte_bpe import ByteBpe
from clip_jax.digests import check_files
from clip_jax.errors import InputError
from clip_jax.input_files import MAX_VOCABULARY_BYTES, read_limited
from clip_jax.paths import as_path
from clip_jax.token_padding import check_texts, check_token_ids, pad_token_ids

FILE_NAME = "tokenizer.model"
WORD_START = "\N{LOWER ONE EIGHTH BLOCK}"  # how sentencepiece writes a space inside a piece


class Tokenizer:
    """Encodes and decodes with a sentencepiece model.

    `unk_id`, `pad_id`, `bos_id`, `eos_id` and `vocab_size` are the model's own.
    """

    def __init__(self, model: bytes, name: str = FILE_NAME) -> None:
        """Parses a serialised sentencepiece model. name: the source, for errors."""
        if not isinstance(model, bytes):
            raise InputError(
                f"model is of type {type(model).__name__}; expected the bytes of a sentencepiece "
                "model: load_tokenizer(path) reads a file"
            )
        self.model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
        except RuntimeError as error:
            raise InputError(f"{name}: not a sentencepiece model ({len(model)} bytes)") from error
        self.unk_id = self._processor.unk_id()
        self.pad_id = self._processor.pad_id()
        self.bos_id = self._processor.bos_id()
        self.eos_id = self._processor.eos_id()
        self.vocab_size = self._processor.get_piece_size()

    def __repr__(self) -> str:
        return f"Tokenizer({self.vocab_size:,} pieces, bos_id={self.bos_id}, eos_id={self.eos_id})"

    @property
    def files(self) -> dict[str, bytes]:
        """Returns the vocabulary's files, name -> content."""
        return {FILE_NAME: self.model}

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without BOS and EOS; letters keep their case."""
        check_texts([text])
        return self._processor.encode(text)

    def decode(self, ids: list[int] | np.ndarray) -> str:
        """Returns the text of ids; special ids are spelled out (`<UNK>`), as youtokentome does.

        An id outside the vocabulary raises InputError.
        """
        ids = check_token_ids(ids, self.vocab_size)
        text = "".join(self._processor.id_to_piece(ids)).replace(WORD_START, " ")
        return text.removeprefix(" ")

    def piece(self, i: int) -> str:
        """Returns the piece of an id, with a space where a word begins."""
        (i,) = check_token_ids([i], self.vocab_size)
        return self._processor.id_to_piece(i).replace(WORD_START, " ")

    def encode_batch(
        self, texts: list[str], context_length: int, *, lowercase: bool = True
    ) -> np.ndarray:
        """Encodes texts to int32[B, context_length]; see `pad_token_ids`."""
        texts = check_text_list("texts", texts)
        check_flag("lowercase", lowercase)
        context_length = check_integer("context_length", context_length, 2)
        encoded = [self.encode(text.lower() if lowercase else text) for text in texts]
        return pad_token_ids(
            encoded, context_length, bos_id=self.bos_id, eos_id=self.eos_id, pad_id=self.pad_id
        )


def has_tokenizer(folder: str | Path) -> bool:
    """Returns whether a folder holds a vocabulary that `load_tokenizer` reads."""
    return (as_path(folder) / FILE_NAME).exists() or byte_bpe.exists_in(folder)


def load_tokenizer(path: str | Path, verify: bool | None = None) -> Tokenizer | ByteBpe:
    """Loads the tokenizer of a file, or of a folder: `tokenizer.model` or a byte-level one.

    verify: whether a folder's files are compared with its digests; None: see
        `digests.should_verify`.
    """
    path = as_path(check_path("path", path))
    check_flag("verify", verify, optional=True)
    if path.is_dir():
        check_files(path, (FILE_NAME, *byte_bpe.FILES), verify)
    file = path / FILE_NAME if path.is_dir() else path
    if (path.is_dir() and not file.exists() and byte_bpe.exists_in(path)) or path.suffix == ".json":
        return byte_bpe.load_byte_bpe(path)
    try:
        return Tokenizer(read_limited(file, MAX_VOCABULARY_BYTES), str(file))
    except OSError as error:
        raise InputError(f"{file}: no tokenizer here ({error.strerror})") from error
