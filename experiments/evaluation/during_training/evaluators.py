"""Makes the evaluations that a training run names in its config.

"TASK:SPLIT" is of a split of its own data set; for ruCLIP "TASK:SET" and "TASK:SET:SPLIT" are of an
evaluation set, by default of its split "test" (`set_evaluators.py`). An image that cannot be read
is left out, which is logged once, and never ends a run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from clip_jax import PretrainedClip
from clip_jax.errors import InputError
from experiments.config.extensions import EvaluatorType, join_names
from experiments.config.run import TrainConfig
from experiments.data.source import Split, open_split
from experiments.data.sources.labels import MissingSplit
from experiments.evaluation.during_training.images import with_confusion
from experiments.evaluation.during_training.set_evaluators import (
    is_set_evaluator,
    probe_scores,
    set_evaluator,
    set_metrics,
)
from experiments.evaluation.during_training.sharded_answers import sharded_answers
from experiments.evaluation.during_training.sharded_clip import ShardedClip
from experiments.evaluation.during_training.sharded_model import ShardedModel, as_sharded
from experiments.evaluation.during_training.sharded_rudolph import sharded_losses
from experiments.evaluation.during_training.sharded_vqgan import sharded_reconstruction
from experiments.evaluation.methods.retrieval import RECALLS, number, retrieve_both
from experiments.evaluation.methods.zero_shot import compare
from experiments.evaluation.metrics.classification import accuracy
from experiments.evaluation.metrics.squad import score_answers
from experiments.evaluation.multihost import gather_notes
from experiments.evaluation.remarks import LogOnce
from experiments.evaluation.unreadable import find_unreadable, listed

Evaluator = Callable[[Any], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class ShardedEvaluator:
    """An evaluator that all processes call, with a `ShardedModel`.

    Any other is called by the first process alone, with a model that has all parameters.
    """

    measure: Evaluator

    def __call__(self, model: ShardedModel | PretrainedClip) -> dict[str, float]:
        """model: a loaded ruCLIP is measured on one device of this process."""
        return self.measure(as_sharded(model))


def make_evaluators(config: TrainConfig) -> dict[str, Evaluator]:
    """Make an evaluator for each name in `config.evaluators`.

    An unknown task or split, or a set that is not on disk, raises InputError.
    """
    tasks = _tasks(config)
    sources = config.extensions.data
    made = {}
    for name in config.evaluators:
        task, colon, split = name.partition(":")
        if config.objective == "clip" and is_set_evaluator(name):
            made[name] = ShardedEvaluator(set_evaluator(config, name))
            continue
        if task not in tasks or not colon:
            raise InputError(
                f"config.evaluators holds {name!r}; expected TASK:SPLIT with a task of "
                f"{', '.join(tasks)}"
            )
        try:
            opened = open_split(config.data, split, sources)
        except MissingSplit as error:
            raise InputError(
                f"config.evaluators holds {name!r}: {error}; {_other_split(config, error.known)}"
            ) from error
        needs = tasks[task].needs
        if needs and not set(needs) & set(opened.features):
            raise InputError(
                f"config.evaluators holds {name!r}, which needs a feature "
                f"{' or '.join(map(repr, needs))}; the data set has "
                f"{', '.join(sorted(opened.features))}; {_proposal(tasks, split, opened)}"
            )
        kind = tasks[task]
        readable = ReadableSplit(opened, config, LogOnce(name), kind.sharded)
        measure = partial(_measure, kind.evaluate, readable)
        made[name] = ShardedEvaluator(measure) if kind.sharded else measure
    if config.best_metric:
        check_metric(config, config.best_metric, "config.best_metric")
    return made


def _tasks(config: TrainConfig) -> dict[str, EvaluatorType]:
    built_in = TASKS.get(config.objective, {})
    return join_names(built_in, config.extensions.evaluators, "evaluator")


def check_metric(config: TrainConfig, metric: str, option: str) -> None:
    """Raises InputError unless "EVALUATOR/NAME" is a metric that the run's evaluators compute."""
    evaluator, slash, name = metric.partition("/")
    if evaluator not in config.evaluators or not slash:
        known = ", ".join(f"{one}/NAME" for one in config.evaluators) or "none: no evaluators"
        raise InputError(f"{option} is {metric!r}; expected one of {known}")
    if config.objective == "clip" and is_set_evaluator(evaluator):
        names = set_metrics(evaluator)
    else:
        names = _tasks(config)[evaluator.partition(":")[0]].metrics
    if names and name not in names:
        listed = ", ".join(f"{evaluator}/{known}" for known in names)
        raise InputError(f"{option} is {metric!r}; expected one of {listed}")


def _proposal(tasks: Mapping[str, EvaluatorType], name: str, split: Split) -> str:
    """Names the evaluators that a split can feed."""
    fitting = [task for task, one in tasks.items() if set(one.needs) & set(split.features)]
    if not fitting:
        return 'no evaluator fits it: --config.evaluators="()"'
    return " or ".join(f"--config.evaluators=\"('{task}:{name}',)\" fits" for task in fitting)


def _other_split(config: TrainConfig, known: Sequence[str]) -> str:
    """Says what to measure on where a split is not there."""
    held_out = [split for split in known if split != config.data.split]
    if held_out:
        opened = open_split(config.data, held_out[0], config.extensions.data)
        return _proposal(_tasks(config), held_out[0], opened)
    return (
        "python -m experiments.prepare SOURCE OUT --validation=0.05 makes a split 'validation'; "
        '--config.evaluators="()" trains without one'
    )


def _measure(
    evaluate: Callable[..., dict[str, float]], split: ReadableSplit, model: Any
) -> dict[str, float]:
    """Nothing where no image can be read: an evaluation never ends a training run."""
    return evaluate(split.config, split, model) if len(split) else {}


class ReadableSplit:
    """The rows of a split whose images can be read; the others are found once, and logged once."""

    def __init__(
        self, split: Split, config: TrainConfig, log: LogOnce, shared: bool = False
    ) -> None:
        """shared: whether all processes use it, and each looks for its share of the others."""
        self.features, self.config, self.log = split.features, config, log
        self._split, self._shared = split, shared

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self._split[place] for place in self._places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._split[self._places[index]]

    @cached_property
    def training(self) -> ReadableSplit:
        """The training split of the same data."""
        data = self.config.data
        opened = open_split(data, data.split, self.config.extensions.data)
        return ReadableSplit(opened, self.config, self.log, self._shared)

    @cached_property
    def _places(self) -> list[int]:
        images = _Images(self._split)
        reasons: dict[int, str] = {}
        if self._split.has_images and self._shared:
            share = range(len(images))[jax.process_index() :: jax.process_count()]
            reasons = gather_notes(find_unreadable(images, share))
        elif self._split.has_images:
            reasons = find_unreadable(images, range(len(images)))
        self.log.write_remarks(unreadable=listed(images, reasons), images=len(images))
        return [place for place in range(len(images)) if place not in reasons]


class _Images:
    """A split's images, as `unreadable.py` takes them."""

    def __init__(self, split: Split) -> None:
        self.name, self.split = str(split), split.name
        self.keys = tuple(f"{split.name}[{i}]" for i in range(len(split)))
        self._rows = split

    def __len__(self) -> int:
        return len(self.keys)

    def image(self, index: int) -> Any:
        return self._rows[index]["image"]


def zero_shot_accuracy(
    config: TrainConfig, split: ReadableSplit, model: ShardedModel
) -> dict[str, float]:
    """The split's "label" by the names of its classes, with the bare name as prompt."""
    clip = ShardedClip(model)
    images, labels = _labelled(clip, split)
    names = split.features["label"].names
    found = compare(images, clip.text_latents(names), labels)
    return with_confusion({"accuracy": found.accuracy}, labels, found.predicted, names)


def caption_recall(
    config: TrainConfig, split: ReadableSplit, model: ShardedModel
) -> dict[str, float]:
    """Recall of each image's captions among all of the split, and of each caption's images.

    mean_recall is the mean of all six, the least noisy one of a small split.
    """
    clip = ShardedClip(model)
    own: dict[int, str] = {}

    def image(place: int) -> tuple[Any, int]:
        row = split[place]
        own[place] = json.dumps(row["captions"])
        return row["image"], 0

    images, _ = clip.image_latents(len(split), image)
    gathered = gather_notes(own)
    captions = number([json.loads(gathered[place]) for place in range(len(split))])
    found = retrieve_both(images, clip.text_latents(captions.texts), captions)
    recalls = {
        f"{prefix}top{k}": result.recall(k)
        for prefix, result in (("", found.texts), ("pictures_", found.images))
        for k in RECALLS
    }
    return {**recalls, "mean_recall": float(np.mean(list(recalls.values())))}


def probe_accuracy(
    config: TrainConfig, split: ReadableSplit, model: ShardedModel
) -> dict[str, float]:
    """The split's "label" by a linear classifier of the training split's unit features."""
    if not len(split.training):
        return {}
    clip = ShardedClip(model)
    known, labels = _labelled(clip, split.training)
    test, right = _labelled(clip, split)
    names = split.features["label"].names
    split.log.write_classes(labels, right, tuple(names))
    scores = probe_scores((known, test), labels, len(names))
    return {"accuracy": accuracy(right, scores.argmax(axis=1))}


def _labelled(clip: ShardedClip, split: ReadableSplit) -> tuple[np.ndarray, np.ndarray]:
    """Unit features and labels of all rows."""

    def image(place: int) -> tuple[Any, int]:
        row = split[place]
        return row["image"], int(row["label"])

    return clip.image_latents(len(split), image)


def pixel_errors(
    config: TrainConfig, split: ReadableSplit, model: ShardedModel
) -> dict[str, float]:
    """Measure how far decoded images are from the encoded ones, and how many codes are in use."""
    size = config.settings.image_size
    errors, codes = sharded_reconstruction(model, split, size)
    return {
        # Images are of one size: the mean of their means is that of all pixels.
        "absolute_error": float(errors.mean(dtype=np.float64)),
        "codebook_usage": len(np.unique(codes)) / model.config.codebook_size,
    }


def losses(config: TrainConfig, split: ReadableSplit, model: ShardedModel) -> dict[str, float]:
    """Losses of images given their first captions, of those captions given the images, the mean."""
    found = sharded_losses(model, split)
    return {**found, "mean_loss": float(np.mean(list(found.values())))}


def answer_scores(
    config: TrainConfig, split: ReadableSplit, model: ShardedModel
) -> dict[str, float]:
    """The likeliest answers to the split's questions, held against the right ones."""
    about, has_images = config.settings.question_about, "image" in split.features
    return score_answers(*sharded_answers(model, split, about, has_images))


CAPTIONS = "captions", "caption"
RECALL_NAMES = tuple(f"{prefix}top{k}" for prefix in ("", "pictures_") for k in RECALLS)
# By objective.
TASKS: dict[str, dict[str, EvaluatorType]] = {
    "clip": {
        "zero-shot": EvaluatorType(zero_shot_accuracy, ("label",), ("accuracy",), sharded=True),
        "linear-probe": EvaluatorType(probe_accuracy, ("label",), ("accuracy",), sharded=True),
        "retrieval": EvaluatorType(
            caption_recall, CAPTIONS, (*RECALL_NAMES, "mean_recall"), sharded=True
        ),
    },
    "vqgan": {
        "reconstruction": EvaluatorType(
            pixel_errors, ("image",), ("absolute_error", "codebook_usage"), sharded=True
        ),
    },
    "rudolph": {
        "losses": EvaluatorType(
            losses, CAPTIONS, ("image_loss", "right_text_loss", "mean_loss"), sharded=True
        ),
        "questions": EvaluatorType(
            answer_scores, ("question",), ("exact_match", "f1"), sharded=True
        ),
    },
}
