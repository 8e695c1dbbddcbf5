"""The interface between the train loop and a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from clip_jax.config import ImageConfig
from clip_jax.tokenizer import Tokenizer
from experiments.data.source import Split
from experiments.data.stream import Examples
from experiments.data.vocabulary import Vocabulary
from experiments.training.partitioning import Table

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class StepContext(NamedTuple):
    """Arguments of a loss besides parameters and rows.

    step: int32[], how many were taken before. keys: key[B], a row's own (`per_example_rng.py`).
    batch_stats: what `Objective.batch_stats` returned, of the whole batch.
    """

    step: jax.Array
    keys: jax.Array
    batch_stats: Mapping[str, jax.Array]


class Pretrained(Protocol):
    """A model as users load it."""

    def save(self, folder: str | Path, **provenance: Any) -> Path: ...


def unchanged(value: Any) -> Any:
    return value


def no_batch_stats(batch: Batch) -> Mapping[str, jax.Array]:
    return {}


@dataclasses.dataclass(frozen=True)
class BatchTransform:
    """Map rows of the data to the inputs of the loss, outside of what is differentiated.

    params: of the network that does it. apply: (params, batch) -> batch, rows by themselves.
    image_size: pixels of the square images in a batch. image: how they are cropped and resized.
    """

    params: Any
    apply: Callable[[Any, Batch], Batch]
    image_size: int
    image: ImageConfig


@dataclasses.dataclass(frozen=True)
class Objective:
    """abstract_params: shapes of the parameters. init: rng -> params.
    loss: (params, rows of a batch, now) -> what is minimised, metrics. Of a device's or
        micro-batch's rows, it and its metrics are such that their means are the whole batch's.
    batch_stats: rows -> means over them that each part of a batch must know of the whole.
    accumulates: whether `loss` itself takes the rows in `config.grad_accum_steps` parts, because no
        part's loss is its own.
    summarize: mean metrics -> what is written of them.
    sharding_rules: the model's sharding table.
    examples: what batches are drawn from; the tokenizer is None where `vocabulary` is.
    pretrained: params on this host -> the model that users load and save.
    model_params: params -> the parameters of that model, layers stacked, where the params are.
    vocabulary: what is expected of the run's tokenizer, None where the model reads no text.
    post_update: params -> params, after each update.
    batch_transform: None where the rows are what the loss takes.
    """

    abstract_params: Params
    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch, StepContext], tuple[jax.Array, Metrics]]
    sharding_rules: Table
    examples: Callable[[Split, Tokenizer | None], Examples]
    pretrained: Callable[[Params, Tokenizer | None], Pretrained]
    vocabulary: Vocabulary | None = None
    batch_stats: Callable[[Batch], Mapping[str, jax.Array]] = no_batch_stats
    accumulates: bool = False
    summarize: Callable[[Metrics], Metrics] = unchanged
    post_update: Callable[[Params], Params] = unchanged
    batch_transform: BatchTransform | None = None
    model_params: Callable[[Params], Params] = unchanged
