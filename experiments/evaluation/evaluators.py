"""Evaluations that a training run can ask for by name: "TASK:SPLIT" of its own data set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from clip_jax import PretrainedClip
from clip_jax.errors import InputError
from experiments.config import TrainConfig
from experiments.data.source import Split, open_split
from experiments.evaluation.retrieval import retrieve
from experiments.evaluation.zero_shot import zero_shot

Evaluator = Callable[[PretrainedClip], dict[str, float]]


def make_evaluators(config: TrainConfig) -> dict[str, Evaluator]:
    """One for each name in `config.evaluators`; an unknown task or split raises InputError."""
    made = {}
    for name in config.evaluators:
        task, colon, split = name.partition(":")
        if task not in TASKS or not colon:
            raise InputError(
                f"config.evaluators holds {name!r}; expected TASK:SPLIT with a task of "
                f"{', '.join(TASKS)}"
            )
        opened = open_split(config.data, split)
        evaluate, needed = TASKS[task]
        if needed not in opened.features:
            raise InputError(
                f"config.evaluators holds {name!r}, which needs a feature {needed!r}; the data set "
                f"has {', '.join(sorted(opened.features))}"
            )
        made[name] = partial(evaluate, split=opened)
    return made


def zero_shot_accuracy(clip: PretrainedClip, split: Split) -> dict[str, float]:
    """The split's "label" by the names of its classes, with the bare name as prompt."""
    rows = list(split)
    result = zero_shot(
        clip,
        [row["image"] for row in rows],
        [row["label"] for row in rows],
        split.features["label"].names,
        templates=["{}"],
    )
    return {"accuracy": result.accuracy}


def caption_recall(clip: PretrainedClip, split: Split) -> dict[str, float]:
    """Each picture's first caption among all first captions of the split."""
    rows = list(split)
    captions = [row["captions"][0] for row in rows]
    candidates = sorted(set(captions))
    place = {caption: i for i, caption in enumerate(candidates)}
    result = retrieve(
        clip, [row["image"] for row in rows], [place[c] for c in captions], candidates
    )
    return {"top1": result.recall(1), "top10": result.recall(10)}


# What is done, and the feature that it cannot do without.
TASKS: dict[str, tuple[Callable[..., dict[str, float]], str]] = {
    "zero-shot": (zero_shot_accuracy, "label"),
    "retrieval": (caption_recall, "image"),
}
