"""Training batches: a function of the config and the step alone, so that resuming needs no state.

Each process reads every `process_count`-th example of one shuffled order, so a batch holds the
same examples on any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import grain
import numpy as np

from clip_jax.config import ClipConfig
from clip_jax.errors import InputError
from clip_jax.image import open_image
from clip_jax.tokenizer import Tokenizer
from experiments.config import DataConfig
from experiments.data.augment import draw, render_scales
from experiments.data.source import Split


class TrainingExamples:
    """Draws of one split: what `Split` holds, with a random caption and a random view."""

    def __init__(
        self, split: Split, config: DataConfig, model: ClipConfig, tokenizer: Tokenizer
    ) -> None:
        self._split = split
        self._config = config
        self._model = model
        self._tokenizer = tokenizer
        self._kept = [self._prepare(i) for i in range(len(split))] if config.in_memory else None

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"image": uint8[H, W, 3], "input_ids": int32[S]}"""
        pictures, ids = self._kept[index] if self._kept is not None else self._prepare(index)
        size = self._model.vision.image_size
        return {
            "image": draw(pictures, size, self._config.augment, rng),
            "input_ids": ids[rng.integers(len(ids))],
        }

    def _prepare(self, index: int) -> tuple[list[np.ndarray], np.ndarray]:
        row, model = self._split[index], self._model
        pictures = render_scales(
            open_image(row["image"]), model.vision.image_size, model.image, self._config.augment
        )
        ids = self._tokenizer.encode_batch(
            row["captions"], model.text.context_length, lowercase=model.lowercase
        )
        return pictures, ids


def batches(
    examples: TrainingExamples,
    count: int,
    config: DataConfig,
    *,
    seed: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches from `first_step` on: this process's rows of each.

    count: examples in the split; each epoch shuffles them anew. Yields {"image":
    uint8[b, H, W, 3], "input_ids": int32[b, S]} with b = batch_size / process_count.
    """
    if config.batch_size % process_count:
        raise InputError(
            f"config.data.batch_size is {config.batch_size}; expected a multiple of the "
            f"{process_count} processes"
        )
    local = config.batch_size // process_count
    drawn = (
        grain.MapDataset.range(count)
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(examples.draw)[process_index::process_count]
        .batch(local)
    )
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4)
    iterator = iter(drawn.to_iter_dataset(options))
    grain.experimental.set_next_index(iterator, first_step)
    return iterator
