"""Training batches: a function of the config and the step alone, so that resuming needs no state.

Each process reads every `process_count`-th example of one shuffled order, so a batch holds the
same examples on any number of processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from clip_jax.errors import InputError
from experiments.config.data import DataConfig
from experiments.data.mixture import Mixture
from experiments.data.sample_ids import ROW
from experiments.data.source import Split

# Above so many rows `group_by` is refused: each process reads all of them, images included, and
# holds their values and numbers, some 100 bytes a row.
MOST_GROUPED = 10_000_000
# Of a split of 2 billion rows a range takes no memory, an array 16 GB.
RowNumbers = range | np.ndarray


class Examples(Protocol):
    """Samples of one split by number; all have arrays of the same names and shapes."""

    split: Split | Mixture

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]: ...


def batches(
    examples: Examples,
    config: DataConfig,
    *,
    seed: int,
    first_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields endless batches from `first_step` on: this process's rows of each.

    Each epoch shuffles the examples again; each part of a mixture has epochs of its own. A batch
    has the arrays of `examples.sample` with a leading axis of batch_size / process_count, and with
    `log_ids` the rows' numbers in the split, `sample_ids.ROW`.
    """
    import grain  # only now, so that a config that cannot work is refused without it

    if config.batch_size % process_count:
        raise InputError(
            f"config.data.batch_size is {config.batch_size}; expected a multiple of the "
            f"{process_count} processes"
        )
    numbers = itertools.count(seed)

    def sample(index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        example = examples.sample(index, rng)
        return {**example, ROW: np.int64(index)} if config.log_ids else example

    def of_part(rows: RowNumbers) -> grain.MapDataset:
        return (
            grain.MapDataset.source(rows).seed(next(numbers)).shuffle().repeat().random_map(sample)
        )

    def of_group(group: RowNumbers) -> tuple[grain.MapDataset, float]:
        rows, weights = part_weights(examples.split, group)
        mixed = grain.MapDataset.mix([of_part(part) for part in rows], weights=weights)
        own = mixed[process_index::process_count].batch(config.batch_size // process_count)
        return own, sum(weights)

    groups, weights = zip(
        *(of_group(group) for group in split_groups(examples.split, config.group_by)), strict=True
    )
    mixed = grain.MapDataset.mix(groups, weights=weights)
    options = grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4)
    iterator = iter(mixed.to_iter_dataset(options))
    grain.experimental.set_next_index(iterator, first_step)
    return iterator


def split_groups(split: Split | Mixture, feature: str) -> list[RowNumbers]:
    """Returns the rows' numbers, by value of a feature; one group of all where it is "".

    Ascending. Only with a feature are they arrays, and are all rows read: more than MOST_GROUPED
    raise InputError.
    """
    if not feature:
        return [range(len(split))]
    if len(split) > MOST_GROUPED:
        raise InputError(
            f"config.data.group_by is {feature!r} and the set has {len(split):,} rows, all of "
            f"which each process would read; expected at most {MOST_GROUPED:,}, or "
            "--config.data.group_by="
        )
    values = np.array([row[feature] for row in split])
    return [np.flatnonzero(values == value) for value in np.unique(values)]


def part_weights(
    split: Split | Mixture, group: RowNumbers
) -> tuple[list[RowNumbers], list[float]]:
    """Returns a group's rows by part, and each part's weight: of one part, how many they are."""
    rows, weights = [], []
    total = sum(weight for _, weight in split.parts)
    for part, weight in split.parts:
        mine = _within(group, part[0], part[-1] + 1)
        if len(mine):
            rows.append(mine)
            weights.append(len(mine) * ((weight * len(split)) / (total * len(part))))
    return rows, weights


def _within(group: RowNumbers, first: int, end: int) -> RowNumbers:
    """Returns the ascending numbers that are at least `first` and below `end`; copies none."""
    if isinstance(group, range):
        return range(max(group.start, first), min(group.stop, end))
    start, stop = np.searchsorted(group, (first, end))
    return group[start:stop]
