"""Byte-level BPE vocabularies of foreign models: transformers' files, or OpenAI's one."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Mapping
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from clip_jax import byte_bpe
from clip_jax.byte_bpe import CLIP, ByteBpe
from clip_jax.config import ClipConfig, RuclipSmallConfig
from clip_jax.errors import InputError
from clip_jax.pretrained import check_vocabulary
from converters.files import read_bytes

OPENAI_NAME = "bpe_simple_vocab_16e6.txt.gz"
MAX_BYTES = 16 << 20  # OpenAI's has 3.2 MB unpacked


def next_to(weights: Path) -> Path | None:
    """Return the vocabulary in the folder of a checkpoint, if there is one."""
    folder = weights.parent
    if (folder / OPENAI_NAME).is_file():
        return folder / OPENAI_NAME
    return folder if byte_bpe.exists_in(folder) else None


def read(
    path: Path | None, config: ClipConfig | RuclipSmallConfig
) -> tuple[Mapping[str, bytes], tuple[Path, ...]]:
    """Return the files for the model folder and the paths read; both empty without a path.

    path: OpenAI's file, a `tokenizer.json`, or a folder of either or of `vocab.json` with
    `merges.txt`. A vocabulary that does not fit the model raises InputError.
    """
    if path is None:
        return {}, ()
    if path.is_dir() and (path / OPENAI_NAME).is_file():
        path = path / OPENAI_NAME
    if path.suffix != ".json" and path.is_file():
        tokenizer = _openai(path, config.text.vocab_size)
        check_vocabulary(tokenizer, config, str(path))
        return tokenizer.files, (path,)
    if path.is_dir() and not byte_bpe.exists_in(path):
        raise InputError(f"{path}: holds neither {OPENAI_NAME} nor vocab.json with merges.txt")
    check(path, config)
    found = [path]
    if path.is_dir():
        found = [path / name for name in byte_bpe.FILES if (path / name).is_file()]
    names = [file.name if path.is_dir() else byte_bpe.TOKENIZER_JSON for file in found]
    files = {name: read_bytes(file) for name, file in zip(names, found, strict=True)}
    return files, tuple(found)


def check(path: Path, config: ClipConfig | RuclipSmallConfig) -> None:
    """Raise InputError unless the vocabulary in a file or folder fits the model."""
    check_vocabulary(byte_bpe.load_byte_bpe(path), config, str(path))


def _openai(file: Path, vocab_size: int) -> ByteBpe:
    """Read OpenAI's file as `clip.simple_tokenizer.SimpleTokenizer` does.

    The file lists more merges than the model has pieces: all bytes, all bytes that end a word, a
    piece for each of the first merges, and the two special pieces.
    """
    lines = _unpacked(file).split("\n")[1:]  # the first line is about the file
    # In the order of code points, printable bytes first, as `bytes_to_unicode` puts them.
    alphabet = sorted(ByteLevel.alphabet())
    pieces = [*alphabet, *(byte + CLIP.end_of_word for byte in alphabet)]
    count = vocab_size - len(pieces) - 2
    if not 0 <= count <= len(lines):
        raise InputError(
            f"{file}: has {len(lines)} merges; a vocabulary of {vocab_size} pieces takes {count}"
        )
    merges = []
    for number, line in enumerate(lines[:count], 2):
        parts = line.split()
        if len(parts) != 2:
            raise InputError(f"{file}: line {number} is {line[:40]!r}; expected two pieces")
        merges.append((parts[0], parts[1]))
    pieces += [left + right for left, right in merges]
    pieces += [CLIP.bos, CLIP.eos]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    if len(vocab) != len(pieces):
        raise InputError(f"{file}: a piece is there twice among the first {count} merges")
    return ByteBpe(vocab, merges, str(file))


def _unpacked(file: Path) -> str:
    content = read_bytes(file)
    try:
        if content.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(content)) as packed:
                content = packed.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"{file}: is larger than {MAX_BYTES} bytes; expected {OPENAI_NAME}")
        return content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be unpacked ({error}); copy it again") from error
