"""The vocabulary of a run: a given one, or a new one from its texts."""

from __future__ import annotations

import dataclasses
import io
import itertools
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
from experiments.config.data import DataConfig
from experiments.data.mixture import Mixture
from experiments.data.source import Split, all_texts

# youtokentome's idea of a space, so that the vocabulary can be exported to its format.
WHITESPACE = "\t\n\v\f\r\N{LOWER ONE EIGHTH BLOCK}"

SAMPLE_SEED = 0x766F63
# Other processes wait for an hour (`PATIENCE_SECONDS`); training itself takes under a minute.
SAMPLE_SECONDS = 1800.0
READERS = 16
CHUNK_ROWS = 4096


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
    wanted: Vocabulary, config: DataConfig, split: Split | Mixture, workdir: Path
) -> Tokenizer:
    """Returns the tokenizer that the run began with, the config's, or a new one of texts.

    A new one is of `config.vocabulary_sample` rows (`sample_texts`).
    """
    file = workdir / FILE_NAME
    if file.exists():
        tokenizer = load_tokenizer(file)
    else:
        if config.vocabulary:
            tokenizer = load_tokenizer(config.vocabulary)
        else:
            texts = sample_texts(split, config.vocabulary_sample, threads=config.threads)
            tokenizer = train_tokenizer(texts, wanted.size)
        replace_file(file, tokenizer.model)
    check_vocabulary(tokenizer, wanted, file)
    return tokenizer


def sample_texts(
    split: Split | Mixture, count: int, *, threads: int = 0, seconds: float = SAMPLE_SECONDS
) -> Iterator[str]:
    """Yields the texts of `count` rows that SAMPLE_SEED chooses, or of all, in the rows' order.

    threads: that read, if more than READERS. Rows that take longer than `seconds` raise InputError:
    other processes wait for them.
    """
    split.require_texts()
    began = time.monotonic()
    with ThreadPoolExecutor(max(threads, READERS)) as readers:
        rows = iter(sample_rows(len(split), count))
        for read in itertools.count(step=CHUNK_ROWS):
            chunk = list(itertools.islice(rows, CHUNK_ROWS))
            if not chunk:
                return
            for row in readers.map(split.__getitem__, chunk):
                yield from all_texts(row)
            if time.monotonic() - began > seconds:
                raise InputError(
                    f"{split}: {read + len(chunk):,} of {min(count, len(split)):,} rows for a "
                    f"vocabulary took {seconds:,.0f} s; name one by config.data.vocabulary, or "
                    "lower config.data.vocabulary_sample"
                )


def sample_rows(rows: int, count: int) -> Sequence[int]:
    """Returns `count` different row numbers, ascending; all where there are no more."""
    if rows <= count:
        return range(rows)
    import grain  # as in `stream.py`; a permutation that is computed number by number

    order = grain.MapDataset.range(rows).seed(SAMPLE_SEED).shuffle()
    return sorted(int(order[i]) for i in range(count))


def check_vocabulary(tokenizer: Tokenizer, wanted: Vocabulary, file: object) -> None:
    """Raises InputError where a model has no room for a vocabulary, or expects other ids."""
    ids = {name: getattr(wanted, name) for name in ("bos_id", "eos_id", "pad_id")}
    found = {name: getattr(tokenizer, name) for name in ids}
    if found != ids or tokenizer.vocab_size > wanted.size:
        raise InputError(
            f"{file}: {tokenizer.vocab_size} pieces and {found}; config.model has room for "
            f"{wanted.size} and expects {ids}"
        )
