"""What the training loop knows of a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax

from clip_jax.tokenizer import Tokenizer
from experiments.data.source import Split
from experiments.data.stream import Examples
from experiments.data.vocabulary import Vocabulary
from experiments.parallel import Table

Params = Mapping[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]


class Pretrained(Protocol):
    """A model as users load it."""

    def save(self, folder: str | Path, **provenance: Any) -> Path: ...


def unchanged(value: Any) -> Any:
    return value


@dataclasses.dataclass(frozen=True)
class Objective:
    """abstract_params: shapes of the parameters. init: rng -> params.
    loss: (params, batch, rng, step int32[]) -> what is minimised, metrics.
    table: the model's sharding table.
    examples: what batches are drawn from; the tokenizer is None where `vocabulary` is.
    pretrained: params on this host -> the model that users load and save.
    vocabulary: what is expected of the run's tokenizer, None where the model reads no text.
    project: params -> params, after each update.
    prepare: a batch on the mesh -> what `loss` takes, outside of the step that is differentiated.
    """

    abstract_params: Params
    init: Callable[[jax.Array], Params]
    loss: Callable[[Params, Batch, jax.Array, jax.Array], tuple[jax.Array, Metrics]]
    table: Table
    examples: Callable[[Split, Tokenizer | None], Examples]
    pretrained: Callable[[Params, Tokenizer | None], Pretrained]
    vocabulary: Vocabulary | None = None
    project: Callable[[Params], Params] = unchanged
    prepare: Callable[[Batch], Batch] = unchanged
