"""Byte-level BPE, the vocabularies of OpenAI's CLIP and of ruGPT-3, by the tokenizers library.

A folder holds `vocab.json` with `merges.txt`, or `tokenizer.json`, which has both and of
which only these are read: normalization and pre-tokenization follow from the kind of
vocabulary, which its special pieces identify.

CLIP's texts become lower-case, in NFC, with runs of white space as one space, as in transformers'
CLIPTokenizer. OpenAI's own code first repairs texts: with ftfy broken encodings, curly quotes,
ligatures and full-width letters, then HTML entities (`&amp;`). Texts without any of these have the
same ids; repair others before encoding.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from clip_jax.arguments import check_flag, check_integer, check_text_list
from clip_jax.errors import InputError
from clip_jax.input_files import MAX_JSON_BYTES, read_limited
from clip_jax.paths import as_path
from clip_jax.text import decode_text, parse_json
from clip_jax.token_padding import check_texts, check_token_ids, pad_token_ids

VOCAB, MERGES, TOKENIZER_JSON = "vocab.json", "merges.txt", "tokenizer.json"
# Files in which transformers names the padding piece; the first that exists counts.
SETTINGS = ("tokenizer_config.json", "special_tokens_map.json")
FILES = (VOCAB, MERGES, TOKENIZER_JSON, *SETTINGS)


@dataclasses.dataclass(frozen=True)
class VocabularySpec:
    """Describes a kind of vocabulary.

    bos, eos: special pieces.
    pad: the padding piece; None: id 0 pads.
    end_of_word: suffix of a word's last piece.
    lowercase: whether texts are lower-cased.
    """

    bos: str
    eos: str
    pad: str | None
    end_of_word: str
    lowercase: bool


CLIP = VocabularySpec("<|startoftext|>", "<|endoftext|>", None, "</w>", True)
RUGPT3 = VocabularySpec("<s>", "</s>", "<pad>", "", False)
# Source: `clip.simple_tokenizer`, with its special pieces and English contractions.
CLIP_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class ByteBpe:
    """Encodes and decodes with one vocabulary; has the interface of `tokenizer.Tokenizer`."""

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        name: str = VOCAB,
        pad: str | None = None,
    ) -> None:
        """Checks the vocabulary and builds the pipeline.

        vocab: piece -> id.
        merges: pairs of pieces, by rank.
        name: the source, for errors.
        pad: the padding piece; None: that of the vocabulary's kind.
        """
        self.spec = _check(vocab, merges, name)
        self._vocab, self._merges, self._pad = dict(vocab), list(merges), pad
        try:
            self._library = _assemble(self._vocab, self._merges, self.spec)
        except Exception as error:  # the library has no types of its own
            reason = " ".join(str(error).split())
            raise InputError(f"{name}: the vocabulary cannot be used ({reason})") from error
        self.bos_id, self.eos_id = vocab[self.spec.bos], vocab[self.spec.eos]
        padding = pad or self.spec.pad
        if padding is not None and padding not in vocab:
            raise InputError(f"{name}: has no piece {padding!r}, which is the padding piece")
        self.pad_id = 0 if padding is None else vocab[padding]
        self.vocab_size = 1 + max(vocab.values())

    def __repr__(self) -> str:
        return f"ByteBpe({self.vocab_size:,} pieces, bos_id={self.bos_id}, eos_id={self.eos_id})"

    @property
    def files(self) -> dict[str, bytes]:
        """Returns the vocabulary's files, name -> content."""
        merges = "".join(f"{left} {right}\n" for left, right in self._merges)
        files = {
            VOCAB: json.dumps(self._vocab, ensure_ascii=False).encode("utf-8"),
            MERGES: f"#version: 0.2\n{merges}".encode(),
        }
        if self._pad is not None:
            files[SETTINGS[0]] = json.dumps({"pad_token": self._pad}).encode("utf-8")
        return files

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text, without BOS and EOS; ruGPT-3's letters keep their case."""
        check_texts([text])
        if self.spec is RUGPT3:
            text = " ".join(text.split())  # as the first ruCLIP's `prc_text`
        return self._library.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Returns the text of ids, special pieces included; InputError for an unknown id."""
        ids = check_token_ids(ids, self.vocab_size)
        text = self._library.decode(ids, skip_special_tokens=False)
        end = self.spec.end_of_word
        return text.replace(end, " ").strip() if end else text

    def piece(self, i: int) -> str:
        """Returns the piece of an id as in the vocabulary, one character for each byte."""
        (i,) = check_token_ids([i], self.vocab_size)
        piece = self._library.id_to_token(i)
        if piece is None:
            raise InputError(f"id {i} is outside the vocabulary of {self.vocab_size} pieces")
        return piece

    def encode_batch(
        self, texts: Sequence[str], context_length: int, *, lowercase: bool = True
    ) -> np.ndarray:
        """Encodes texts to int32[B, context_length]; see `pad_token_ids`.

        lowercase: whether to lower-case texts; CLIP's always are.
        """
        texts = check_text_list("texts", texts)
        check_flag("lowercase", lowercase)
        context_length = check_integer("context_length", context_length, 2)
        lower = lowercase and not self.spec.lowercase
        encoded = [self.encode(text.lower() if lower else text) for text in texts]
        return pad_token_ids(
            encoded, context_length, bos_id=self.bos_id, eos_id=self.eos_id, pad_id=self.pad_id
        )


def exists_in(folder: str | Path) -> bool:
    """Returns whether a folder holds a byte-level vocabulary."""
    folder = as_path(folder)
    has_both = all((folder / name).is_file() for name in (VOCAB, MERGES))
    return (folder / TOKENIZER_JSON).is_file() or has_both


def load_byte_bpe(path: str | Path) -> ByteBpe:
    """Reads the vocabulary of a folder, or of a file like `tokenizer.json`."""
    path = as_path(path)
    folder, file = (path, path / VOCAB) if path.is_dir() else (path.parent, path)
    if path.is_dir() and all((path / name).is_file() for name in (VOCAB, MERGES)):
        vocab, merges = _json(file), _parse_merges(_bytes(path / MERGES), str(path / MERGES))
    else:
        file = path / TOKENIZER_JSON if path.is_dir() else path
        vocab, merges = _parse_vocab(_json(file), str(file))
    return ByteBpe(vocab, merges, str(file), _padding(folder))


def _assemble(
    vocab: dict[str, int], merges: list[tuple[str, str]], spec: VocabularySpec
) -> Tokenizer:
    """Builds the pipeline of transformers' CLIPTokenizer or GPT2Tokenizer."""
    # transformers has <|endoftext|> for bytes that a vocabulary lacks; the published lack none.
    unknown = {"unk_token": spec.eos} if spec is CLIP else {}
    model = models.BPE(vocab, merges, end_of_word_suffix=spec.end_of_word, **unknown)
    library = Tokenizer(model)
    by_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.pre_tokenizer = by_bytes
    if spec is CLIP:
        library.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        words = pre_tokenizers.Split(Regex(CLIP_WORDS), behavior="removed", invert=True)
        library.pre_tokenizer = pre_tokenizers.Sequence([words, by_bytes])
    library.decoder = decoders.ByteLevel()
    special = [spec.bos, spec.eos] + [spec.pad] * (spec.pad is not None)
    library.add_special_tokens([AddedToken(piece, special=True) for piece in special])
    return library


def _check(vocab: Any, merges: Sequence[Any], name: str) -> VocabularySpec:
    """Returns the kind of vocabulary; InputError unless vocabulary and merges fit together."""
    if not isinstance(vocab, Mapping) or not vocab:
        raise InputError(f"{name}: holds no vocabulary; expected an object of pieces and ids")
    for piece, i in vocab.items():
        if type(i) is not int or not 0 <= i < 1 << 24:
            raise InputError(f"{name}: piece {piece!r} has id {i!r}; expected a number from 0")
    if len(set(vocab.values())) != len(vocab):
        twice = sorted(vocab.values())
        i = next(a for a, b in zip(twice, twice[1:], strict=False) if a == b)
        raise InputError(f"{name}: id {i} belongs to more than one piece")
    spec = next((f for f in (CLIP, RUGPT3) if {f.bos, f.eos} <= set(vocab)), None)
    if spec is None or (spec.pad and spec.pad not in vocab):
        raise InputError(
            f"{name}: has neither CLIP's {CLIP.bos} and {CLIP.eos} nor ruGPT-3's {RUGPT3.bos}, "
            f"{RUGPT3.eos} and {RUGPT3.pad}"
        )
    for number, (left, right) in enumerate(merges, 1):
        for piece in (left, right, left + right):
            if piece not in vocab:
                raise InputError(
                    f"{name}: merge {number}, {left!r} and {right!r}, needs {piece!r}, which is "
                    "not in the vocabulary; the two belong to different models"
                )
    return spec


def _parse_merges(content: bytes, name: str) -> list[tuple[str, str]]:
    lines = decode_text(content, name).split("\n")
    merges = []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#version"):
            continue
        parts = line.split(" ")
        if len(parts) != 2 or not all(parts):
            raise InputError(f"{name}: line {number} is {line[:40]!r}; expected two pieces")
        merges.append((parts[0], parts[1]))
    return merges


def _parse_vocab(
    content: dict[str, Any], name: str
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Parses vocabulary and merges of a `tokenizer.json`; merges are pairs or "left right"."""
    model = content.get("model")
    if not isinstance(model, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else type(model).__name__
        raise InputError(f"{name}: its model is {kind!r}; expected BPE")
    vocab, merges, added = model.get("vocab"), model.get("merges"), content.get("added_tokens", [])
    if not isinstance(vocab, dict) or not isinstance(merges, list) or not isinstance(added, list):
        raise InputError(f"{name}: its model has no vocab, merges and list of added_tokens")
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else merge for merge in merges]
    for pair in pairs:
        if not isinstance(pair, tuple | list) or [type(part) for part in pair] != [str, str]:
            raise InputError(f"{name}: merge {pair!r} is not of two pieces")
    try:
        extra = {token["content"]: token["id"] for token in added}
    except (KeyError, TypeError) as error:
        raise InputError(f"{name}: added_tokens are not objects with content and id") from error
    return {**vocab, **extra}, [(left, right) for left, right in pairs]


def _padding(folder: Path) -> str | None:
    """Reads the padding piece that transformers' settings in the folder name, if any."""
    for name in SETTINGS:
        if (folder / name).is_file():
            pad = _json(folder / name).get("pad_token")
            pad = pad.get("content") if isinstance(pad, dict) else pad
            if isinstance(pad, str):
                return pad
    return None


def _json(file: Path) -> dict[str, Any]:
    content = parse_json(_bytes(file), str(file))
    if not isinstance(content, dict):
        raise InputError(f"{file}: holds a {type(content).__name__}; expected a JSON object")
    return content


def _bytes(file: Path) -> bytes:
    try:
        return read_limited(file, MAX_JSON_BYTES)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from error
