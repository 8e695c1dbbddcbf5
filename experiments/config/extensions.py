"""Functions that an experiment file brings: an own objective, optimiser, metric, data or mask.

An experiment file may define `get_extensions() -> Extensions` beside `get_config()`. Its config
then names them as it names the built-in ones: `config.optim.optimizer = "sgd"`. docs/extending.md
has an example of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from clip_jax.errors import InputError
from rudolph_jax.config import MaskType

if TYPE_CHECKING:
    import jax
    import optax
    from jax.sharding import Mesh

    from experiments.config.optimizer import OptimConfig
    from experiments.config.run import TrainConfig
    from experiments.objectives.objective import Objective

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class ObjectiveType:
    """An own objective.

    model, settings: the defaults of `config.model` and `config.settings`, frozen dataclasses, whose
        types are the ones to expect.
    make: (config, mesh) -> Objective, as in `experiments/objectives/`.
    batch_shapes: config -> shapes of a global batch, for `experiments.plan`.
    kind: of the model folders that `config.init.folder` may name, "clip" for a ClipConfig say.
    """

    model: Any
    settings: Any
    make: Callable[[TrainConfig, Mesh], Objective]
    batch_shapes: Callable[[TrainConfig], dict[str, jax.ShapeDtypeStruct]]
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class EvaluatorType:
    """Metrics during training, `config.evaluators = ("NAME:SPLIT",)`.

    evaluate: (config, rows, model) -> metrics. rows: those of the split, which can be iterated
    several times. needs: features, one of which the split must have; (): none. metrics: the names
    that `evaluate` returns, by which a wrong `config.best_metric` or `--metric` is known before
    anything is trained; (): not stated. sharded: all processes call `evaluate`, and the model is a
    `ShardedModel`, with parameters as training has them; else the first process calls it, on one
    device, and the model is what users load, for which all parameters are gathered.
    """

    evaluate: Callable[[TrainConfig, Any, Any], dict[str, float]]
    needs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    sharded: bool = False


@dataclasses.dataclass(frozen=True)
class Extensions:
    """Own functions by the names under which a config has them.

    objectives: `config.objective`.
    optimizers: `config.optim.optimizer`; OptimConfig -> the direction of an update, to which
        clipping, weight decay and the schedule are added.
    schedules: `config.optim.schedule`; (OptimConfig, steps) -> an optax schedule.
    evaluators: names in `config.evaluators`, of any objective.
    data: `config.data.name`; split -> its rows, {"image": bytes, "captions": [...]} say.
    masks: `config.model.mask_order` of RUDOLPH.
    """

    objectives: Mapping[str, ObjectiveType] = dataclasses.field(default_factory=dict)
    optimizers: Mapping[str, Callable[[OptimConfig], optax.GradientTransformation]] = (
        dataclasses.field(default_factory=dict)
    )
    schedules: Mapping[str, Callable[[OptimConfig, int], optax.Schedule]] = dataclasses.field(
        default_factory=dict
    )
    evaluators: Mapping[str, EvaluatorType] = dataclasses.field(default_factory=dict)
    data: Mapping[str, Callable[[str], Sequence[Row]]] = dataclasses.field(default_factory=dict)
    masks: tuple[MaskType, ...] = ()

    def find_mask(self, mask_order: str) -> MaskType | None:
        return next((mask for mask in self.masks if mask.name == mask_order), None)


NO_EXTENSIONS = Extensions()


def join_names(built_in: Mapping[str, Any], own: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns both tables as one; a name in both raises InputError."""
    twice = sorted(set(built_in) & set(own))
    if twice:
        raise InputError(f"extensions: {what} {twice[0]!r} is built in; choose another name")
    return {**built_in, **own}
