"""The vocabulary of a run: a given one, or a new one from its texts."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
from experiments.config.data import DataConfig
from experiments.data.source import Split, all_texts

# youtokentome's idea of a space, so that the vocabulary can be exported to its format.
WHITESPACE = "\t\n\v\f\r\N{LOWER ONE EIGHTH BLOCK}"


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Trains BPE with ruCLIP's special ids (pad 0, unk 1, bos 2, eos 3) on lower-cased captions.

    vocab_size is an upper bound: few captions give fewer pieces. The same captions give the same
    model. Captions that hold no text raise InputError.
    """
    lines = [caption.lower() for caption in captions if caption.strip()]
    if not lines:
        raise InputError("no caption holds any text; a vocabulary cannot be trained")
    model = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        rules = Path(folder) / "whitespace.tsv"
        rules.write_text("".join(f"{ord(c):X}\t20\n" for c in WHITESPACE), encoding="utf-8")
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type="bpe",
                vocab_size=vocab_size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_tsv=str(rules),
                split_digits=False,
                split_by_unicode_script=False,
                split_by_number=False,
                pad_id=0,
                unk_id=1,
                bos_id=2,
                eos_id=3,
                pad_piece="<PAD>",
                unk_piece="<UNK>",
                bos_piece="<BOS>",
                eos_piece="<EOS>",
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise InputError(
                f"a vocabulary of {vocab_size} pieces cannot be trained: "
                f"{' '.join(str(error).split())}"
            ) from error
    proto = sentencepiece_model_pb2.ModelProto.FromString(model.getvalue())
    # The path of the rules, a temporary file's, would make each model differ.
    proto.normalizer_spec.ClearField("normalization_rule_tsv")
    return Tokenizer(proto.SerializeToString(deterministic=True))


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Describe the tokenizer of a model: at most `size` pieces, and these special ids."""

    size: int
    bos_id: int
    eos_id: int
    pad_id: int


def run_tokenizer(
    wanted: Vocabulary, config: DataConfig, split: Split, workdir: Path
) -> Tokenizer:
    """Returns the tokenizer that the run began with, the config's, or a new one of the texts."""
    file = workdir / FILE_NAME
    if file.exists():
        tokenizer = load_tokenizer(file)
    else:
        if config.vocabulary:
            tokenizer = load_tokenizer(config.vocabulary)
        else:
            split.require_texts()
            texts = (text for i in range(len(split)) for text in all_texts(split[i]))
            tokenizer = train_tokenizer(texts, wanted.size)
        replace_file(file, tokenizer.model)
    ids = {name: getattr(wanted, name) for name in ("bos_id", "eos_id", "pad_id")}
    found = {name: getattr(tokenizer, name) for name in ids}
    if found != ids or tokenizer.vocab_size > wanted.size:
        raise InputError(
            f"{file}: {tokenizer.vocab_size} pieces and {found}; config.model has room for "
            f"{wanted.size} and expects {ids}"
        )
    return tokenizer
