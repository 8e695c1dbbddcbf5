"""Evaluations that a training run can ask for by name.

"TASK:SPLIT" is of a split of its own data set; for ruCLIP "TASK:SET" and "TASK:SET:SPLIT" are of an
evaluation set, by default of its split "test" (`set_evaluators.py`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip
from clip_jax.errors import InputError
from experiments.config import TrainConfig
from experiments.data.source import Split, open_split
from experiments.evaluation.answers import score_answers
from experiments.evaluation.metrics import accuracy
from experiments.evaluation.reconstruction import reconstruct
from experiments.evaluation.retrieval import RECALLS, number, retrieve_both
from experiments.evaluation.sequence_losses import sequence_losses
from experiments.evaluation.set_evaluators import is_of_set, of_set, probe_scores
from experiments.evaluation.zero_shot import zero_shot
from rudolph_jax.image_tokenizer import PretrainedVqgan
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.tasks import answer_questions
from rudolph_jax.texts import TruncationWarning

Evaluator = Callable[[Any], dict[str, float]]


def make_evaluators(config: TrainConfig) -> dict[str, Evaluator]:
    """One for each name in `config.evaluators`.

    An unknown task or split, or a set that is not on disk, raises InputError.
    """
    tasks = TASKS[config.objective]
    made = {}
    for name in config.evaluators:
        task, colon, split = name.partition(":")
        if config.objective == "clip" and is_of_set(name):
            made[name] = of_set(config, name)
            continue
        if task not in tasks or not colon:
            raise InputError(
                f"config.evaluators holds {name!r}; expected TASK:SPLIT with a task of "
                f"{', '.join(tasks)}"
            )
        opened = open_split(config.data, split)
        evaluate, *needed = tasks[task]
        if not set(needed) & set(opened.features):
            raise InputError(
                f"config.evaluators holds {name!r}, which needs a feature "
                f"{' or '.join(map(repr, needed))}; the data set has "
                f"{', '.join(sorted(opened.features))}"
            )
        made[name] = partial(evaluate, config, opened)
    return made


def zero_shot_accuracy(config: TrainConfig, split: Split, clip: PretrainedClip) -> dict[str, float]:
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


def caption_recall(config: TrainConfig, split: Split, clip: PretrainedClip) -> dict[str, float]:
    """Recall of each picture's captions among all of the split, and of each caption's pictures."""
    rows = list(split)
    captions = number([row["captions"] for row in rows])
    predictor = _predictor(clip)
    images = predictor.get_image_latents([row["image"] for row in rows])
    found = retrieve_both(images, predictor.get_text_latents(captions.texts), captions)
    return {
        f"{prefix}top{k}": result.recall(k)
        for prefix, result in (("", found.texts), ("pictures_", found.pictures))
        for k in RECALLS
    }


def probe_accuracy(config: TrainConfig, split: Split, clip: PretrainedClip) -> dict[str, float]:
    """The split's "label" by a linear classifier of the training split's unit features."""
    known = list(open_split(config.data, config.data.split))
    asked = list(split)
    predictor = _predictor(clip)
    features = tuple(
        predictor.get_image_latents([row["image"] for row in rows]) for rows in (known, asked)
    )
    labels, right = (np.array([row["label"] for row in rows]) for rows in (known, asked))
    scores = probe_scores(features, labels, split.features["label"].num_classes)
    return {"accuracy": accuracy(right, scores.argmax(axis=1))}


def _predictor(clip: PretrainedClip) -> Predictor:
    return Predictor(clip, ["{}"], batch_size=256, quiet=True)


def pixel_errors(config: TrainConfig, split: Split, vqgan: PretrainedVqgan) -> dict[str, float]:
    """How far decoded pictures are from the encoded ones, and how many codes are in use."""
    result = reconstruct(vqgan, [row["image"] for row in split], config.settings.image_size)
    return {
        "absolute_error": result.absolute_error,
        "codebook_usage": result.codebook_usage(vqgan.config.codebook_size),
    }


def losses(config: TrainConfig, split: Split, rudolph: PretrainedRudolph) -> dict[str, float]:
    """Of pictures given their first captions, and of those captions given the pictures."""
    rows = list(split)
    return sequence_losses(
        rudolph, [row["image"] for row in rows], [row["captions"][0] for row in rows]
    )


def answer_scores(
    config: TrainConfig, split: Split, rudolph: PretrainedRudolph
) -> dict[str, float]:
    """The likeliest answers to the split's questions, held against the right ones."""
    rows = list(split)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)  # sets hold many long contexts
        answers = answer_questions(
            rudolph,
            [row["question"] for row in rows],
            [row.get("image") for row in rows],
            [row.get("context", "") for row in rows],
            about=config.settings.question_about,
            quiet=True,
        )
    return score_answers(answers, [row["answers"] for row in rows])


# By objective: what is done, and the features of which it cannot do without one.
CAPTIONS = "captions", "caption"
TASKS: dict[str, dict[str, tuple[Any, ...]]] = {
    "clip": {
        "zero-shot": (zero_shot_accuracy, "label"),
        "linear-probe": (probe_accuracy, "label"),
        "retrieval": (caption_recall, *CAPTIONS),
    },
    "vqgan": {"reconstruction": (pixel_errors, "image")},
    "rudolph": {"losses": (losses, *CAPTIONS), "questions": (answer_scores, "question")},
}
