"""Training batches: a function of the config and the step alone, so that resuming needs no state.

Each process reads every `process_count`-th example of one shuffled order, so a batch holds the
same examples on any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import grain
import numpy as np

from clip_jax.errors import InputError
from experiments.data.config import DataConfig
from experiments.data.source import Split


class Examples(Protocol):
    """Draws of one split by number; all have arrays of the same names and shapes."""

    split: Split

    def draw(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]: ...


def batches(
    examples: Examples,
    config: DataConfig,
    *,
    seed: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Endless batches from `first_step` on: this process's rows of each.

    Each epoch shuffles the examples anew. Yields what `examples.draw` gives, each array with a
    leading axis of batch_size / process_count.
    """
    if config.batch_size % process_count:
        raise InputError(
            f"config.data.batch_size is {config.batch_size}; expected a multiple of the "
            f"{process_count} processes"
        )
    groups = split_groups(examples.split, config.group_by)

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


def split_groups(split: Split, feature: str) -> list[np.ndarray]:
    """The rows' numbers, by value of a feature; one group of all where it is ""."""
    everything = np.arange(len(split))
    if not feature:
        return [everything]
    values = np.array([row[feature] for row in split])
    return [everything[values == value] for value in np.unique(values)]
