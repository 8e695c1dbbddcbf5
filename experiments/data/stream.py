"""Training batches: a function of the config and the step alone, so that resuming needs no state.

Each process reads every `process_count`-th example of one shuffled order, so a batch holds the
same examples on any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator

import grain
import numpy as np
from tqdm import tqdm

from clip_jax.config import ClipConfig
from clip_jax.errors import InputError
from clip_jax.image import open_image
from clip_jax.tokenizer import Tokenizer
from experiments.config import DataConfig
from experiments.data.augment import draw, render
from experiments.data.source import Split

RENDERING = 0x72656E64  # sets the renderings' random numbers apart from all others


class TrainingExamples:
    """Draws of one split: what `Split` holds, with a random caption and a random view."""

    def __init__(
        self, split: Split, config: DataConfig, model: ClipConfig, tokenizer: Tokenizer
    ) -> None:
        self._split = split
        self._config = config
        self._model = model
        self._tokenizer = tokenizer
        self._kept = None
        if config.in_memory:
            variants = config.augment.variants if config.augment.renders else 1
            self._kept = [
                self._prepare(i, variants, np.random.default_rng((RENDERING, i)))
                for i in tqdm(range(len(split)), "rendering", disable=None, leave=False)
            ]

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """{"image": uint8[H, W, 3], "input_ids": int32[S]}"""
        if self._kept is None:
            variants, ids = self._prepare(index, 1, rng)
        else:
            variants, ids = self._kept[index]
        picture = variants[rng.integers(len(variants))]
        size = self._model.vision.image_size
        return {
            "image": draw(picture, size, self._config.augment, rng),
            "input_ids": ids[rng.integers(len(ids))],
        }

    def groups(self) -> list[np.ndarray]:
        """The examples' numbers, by value of `config.group_by`; one group of all without it."""
        everything = np.arange(len(self._split))
        if not self._config.group_by:
            return [everything]
        values = np.array([row[self._config.group_by] for row in self._split])
        return [everything[values == value] for value in np.unique(values)]

    def _prepare(
        self, index: int, variants: int, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], np.ndarray]:
        row, model = self._split[index], self._model
        image = open_image(row["image"])
        augment, size = self._config.augment, model.vision.image_size
        rendered = [render(image, size, model.image, augment, rng) for _ in range(variants)]
        ids = self._tokenizer.encode_batch(
            row["captions"], model.text.context_length, lowercase=model.lowercase
        )
        return rendered, ids


def batches(
    examples: TrainingExamples,
    config: DataConfig,
    *,
    seed: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches from `first_step` on: this process's rows of each.

    Each epoch shuffles the examples anew. Yields {"image": uint8[b, H, W, 3],
    "input_ids": int32[b, S]} with b = batch_size / process_count.
    """
    if config.batch_size % process_count:
        raise InputError(
            f"config.data.batch_size is {config.batch_size}; expected a multiple of the "
            f"{process_count} processes"
        )
    groups = examples.groups()

    def of_group(number: int) -> grain.MapDataset:
        return (
            grain.MapDataset.source(groups[number])
            .seed(seed + number)
            .shuffle()
            .repeat()
            .random_map(examples.draw)[process_index::process_count]
            .batch(config.batch_size // process_count)
        )

    mixed = grain.MapDataset.mix(
        [of_group(number) for number in range(len(groups))],
        weights=[len(group) for group in groups],
    )
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4)
    iterator = iter(mixed.to_iter_dataset(options))
    grain.experimental.set_next_index(iterator, first_step)
    return iterator
