"""Checks that a run's data can be read: shards, open files, memory, vocabulary, first rows."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from clip_jax.config import ClipConfig
from clip_jax.errors import InputError
from clip_jax.paths import as_path, is_remote
from clip_jax.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
from experiments.config.run import TrainConfig
from experiments.data.mixture import Mixture
from experiments.data.open_files import raise_file_limit
from experiments.data.shard_readers import MOST_READERS, ShardReaders, shared_pool
from experiments.data.source import Split
from experiments.data.stream import batches
from experiments.data.vocabulary import check_vocabulary, sample_texts, train_tokenizer
from experiments.objectives.objective import Objective
from experiments.training.warm_start import initial_vocabulary
from rudolph_jax.config import RudolphConfig

# Sockets, libraries and checkpoints take some tens.
FEWEST_FILES = 128
READER_BYTES = 50e3  # of a shard of 16,000 records
SHARD_BYTES = 16  # its length, and the number of its first row
TRIED_ROWS = 64


def shards_of(split: Split | Mixture) -> list[ShardReaders]:
    """Returns the shards of each set that has some."""
    splits = split.splits if isinstance(split, Mixture) else [split]
    return [each.shards for each in splits if each.shards is not None]


def check_shards(split: Split | Mixture, every: bool = True) -> str:
    """Raises InputError where shards are missing. every: list all, or try each set's ends only."""
    count = 0
    for shards in shards_of(split):
        numbers = range(shards.shard_count) if every else {0, shards.shard_count - 1}
        files = [as_path(shards.path_of(number)) for number in numbers]
        there = {file.name for file in files[0].parent.iterdir()} if every else None
        for file in files:
            if file.name not in there if there is not None else not file.is_file():
                raise InputError(f"{file}: no such file; expected {shards.shard_count:,} shards")
        count += shards.shard_count
    return f"{len(split):,} records in {count:,} shards" if count else f"{len(split):,} records"


def check_open_files(split: Split | Mixture) -> tuple[str, str]:
    """Returns what is to be said of open files, and a warning: "" where there is none.

    Raises InputError for a limit with which no run can work.
    """
    local = [each for each in shards_of(split) if not is_remote(each.path_of(0))]
    limit, count = raise_file_limit(), sum(shards.shard_count for shards in local)
    if limit < FEWEST_FILES:
        raise InputError(
            f"this process may open {limit} files; expected at least {FEWEST_FILES}: ulimit -n"
        )
    most = shared_pool().limit
    said = f"a limit of {limit:,}; {min(count, most):,} of {count:,} shards open at a time"
    if most >= min(count, MOST_READERS):
        return said, ""
    return said, (
        f"a limit of {limit:,} open files leaves {most:,} of {count:,} shards open at a time, so "
        "most reads open one first; ulimit -n raises it"
    )


def check_vocabulary_files(
    config: TrainConfig, objective: Objective, split: Split | Mixture, workdir: Path | None
) -> tuple[str, Tokenizer | None]:
    """Returns what is to be said of the vocabulary, and it, where it is not yet to be trained.

    Raises InputError for one that is missing or does not fit the model.
    """
    if objective.vocabulary is None:
        return "none needed", None
    file = workdir / FILE_NAME if workdir is not None else None
    begun = file is not None and file.exists()
    named = str(file) if begun else initial_vocabulary(config).vocabulary
    if not named:
        split.require_texts()
        rows = min(config.data.vocabulary_sample, len(split))
        said = f"trained from {rows:,} of {len(split):,} rows; config.data.vocabulary names one"
        return said, None
    tokenizer = load_tokenizer(named)
    check_vocabulary(tokenizer, objective.vocabulary, named)
    return f"{named}: {tokenizer.vocab_size:,} pieces", tokenizer


def check_memory(config: TrainConfig, split: Split | Mixture) -> str:
    """Raises InputError where the index and the images held in memory exceed this machine's."""
    shards = sum(each.shard_count for each in shards_of(split))
    index = SHARD_BYTES * shards + READER_BYTES * min(shards, shared_pool().limit)
    index += 8 * len(split) if config.data.group_by else 0
    images = 0.0
    if config.data.in_memory and split.has_images:
        variants = config.data.augment.variants if config.data.augment.renders else 1
        images = float(variants * len(split) * _image_bytes(config))
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if index + images > have:
        raise InputError(
            f"{len(split):,} records take {(index + images) / 1e9:,.1f} GB in this process, the "
            f"machine has {have / 1e9:,.1f} GB; expected --config.data.in_memory=False for a large "
            "set, and no config.data.group_by"
        )
    return f"index {index / 1e9:.3f} GB, images in memory {images / 1e9:.3f} GB"


def _image_bytes(config: TrainConfig) -> int:
    """Returns what an image takes in memory: its pixels, or the codes that RUDOLPH keeps of it."""
    model = config.model
    if isinstance(model, RudolphConfig):
        return 4 * model.image_tokens_per_side**2
    size = model.vision.image_size if isinstance(model, ClipConfig) else 256
    return 3 * getattr(config.settings, "image_size", size) ** 2


def check_batch(
    config: TrainConfig,
    objective: Objective,
    split: Split | Mixture,
    tokenizer: Tokenizer | None,
    process_index: int = 0,
    process_count: int = 1,
) -> str:
    """Reads and decodes rows of the first batch of this process, TRIED_ROWS at most.

    objective: of a config that holds nothing in memory. tokenizer: None for a vocabulary that the
    run will train: one of a few rows stands for it.
    """
    if tokenizer is None and objective.vocabulary is not None:
        texts = sample_texts(split, TRIED_ROWS)
        tokenizer = train_tokenizer(texts, objective.vocabulary.size)
    rows = min(TRIED_ROWS, config.data.batch_size // process_count)
    data = dataclasses.replace(
        config.data, in_memory=False, log_ids=False, batch_size=rows * process_count, group_by=""
    )
    examples = objective.examples(split, tokenizer)
    stream = batches(
        examples, data, seed=config.seed, process_index=process_index, process_count=process_count
    )
    start = time.perf_counter()
    batch = next(stream)
    seconds = time.perf_counter() - start
    shapes = ", ".join(f"{key} {each.dtype}{list(each.shape[1:])}" for key, each in batch.items())
    return f"{rows} rows in {seconds:.2f} s: {shapes}"
