"""Measures evaluation sets while ruCLIP trains: "zero-shot:SET" and "linear-probe:SET".

SET may be followed by a split, "cifar10:validation" say; else it is "test". What is missing raises
before training: sets are opened, and prompts made, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from clip_jax import PretrainedClip
from clip_jax.errors import InputError
from experiments.config.run import MeshConfig, TrainConfig
from experiments.evaluation.during_training.images import with_confusion
from experiments.evaluation.during_training.sharded_clip import ShardedClip
from experiments.evaluation.during_training.sharded_model import ShardedModel, as_sharded
from experiments.evaluation.methods.logistic_regression import LogisticRegressionFit
from experiments.evaluation.methods.zero_shot import compare
from experiments.evaluation.metrics import classification
from experiments.evaluation.prompts.class_prompts import prompts_for
from experiments.evaluation.remarks import LogOnce
from experiments.evaluation.sets import DATA_DIR, RECORDS, LabelledSet, open_set
from experiments.evaluation.sets.record import BUILTIN
from experiments.evaluation.unreadable import listed
from experiments.training.partitioning import make_mesh

C = 1.0  # of probes during training, which have no sweep: that of ruCLIP's README

Measure = Callable[[ShardedModel], dict[str, float]]


def is_set_evaluator(name: str) -> bool:
    """Returns whether what comes after the task is a set's name."""
    return any(part in RECORDS for part in name.split(":")[1:2])


def set_metrics(name: str) -> tuple[str, ...]:
    """Returns the names of what the evaluator of a set computes."""
    return (RECORDS[name.split(":")[1]].metric,)


def set_evaluator(config: TrainConfig, name: str) -> Measure:
    """The evaluator of this name, "TASK:SET" or "TASK:SET:SPLIT"."""
    task, known, *split = name.split(":")
    if task not in SET_TASKS or len(split) > 1:
        raise InputError(
            f"config.evaluators holds {name!r}; expected TASK:SET or TASK:SET:SPLIT with a task of "
            f"{', '.join(SET_TASKS)}"
        )
    record = RECORDS[known]
    directory = (
        config.data.directory if record.source == BUILTIN else config.evaluation_sets or DATA_DIR
    )

    def opened(part: str) -> LabelledSet:
        return open_set(known, part, directory)

    log = LogOnce(name)
    measure = SET_TASKS[task](opened, split[0] if split else "test", record.metric, log)

    def unless_unreadable(model: ShardedModel | PretrainedClip) -> dict[str, float]:
        try:
            return measure(as_sharded(model))
        except InputError as error:  # the readable images do not suffice; training continues
            log.write_line(str(error))
            return {}

    return unless_unreadable


def _zero_shot(
    opened: Callable[[str], LabelledSet], split: str, metric: str, log: LogOnce
) -> Measure:
    images = opened(split)
    prompts = prompts_for(images, "ru").by_class

    def measure(model: ShardedModel) -> dict[str, float]:
        clip = ShardedClip(model)
        values, labels = _readable(clip, images, log)
        found = compare(values, clip.class_latents(prompts), labels)
        value = classification.METRICS[metric](found.labels, found.similarities)
        return with_confusion({metric: value}, labels, found.predicted, images.class_names)

    return measure


def _linear_probe(
    opened: Callable[[str], LabelledSet], split: str, metric: str, log: LogOnce
) -> Measure:
    train, test = opened("train"), opened(split)

    def measure(model: ShardedModel) -> dict[str, float]:
        clip = ShardedClip(model)
        known, labels = _readable(clip, train, log)
        queries, right = _readable(clip, test, log)
        log.write_classes(labels, right, train.class_names)
        scores = probe_scores((known, queries), labels, len(train.class_names))
        return {metric: classification.METRICS[metric](right, scores)}

    return measure


def _readable(
    clip: ShardedClip, images: LabelledSet, log: LogOnce
) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of the images that can be read."""
    features = clip.set_features(images)
    log.write_remarks(unreadable=listed(images, features.unreadable), images=len(images))
    return features.values[features.readable], images.labels[features.readable]


def probe_scores(
    features: tuple[np.ndarray, np.ndarray], labels: np.ndarray, classes: int
) -> np.ndarray:
    """Scores of the second features by a classifier of the first, unit rows both.

    Each process fits the same on a device of its own: features are a small part of the work.
    """
    mesh = make_mesh(MeshConfig(), jax.local_devices()[:1])
    with jax.set_mesh(mesh):
        return LogisticRegressionFit(features[0], labels, classes).fit(C).scores(features[1])


SET_TASKS: dict[str, Callable[..., Any]] = {
    "zero-shot": _zero_shot,
    "linear-probe": _linear_probe,
}
