"""Classifies zero-shot by RUDOLPH: the class whose caption surprises it least after the image.

Source: `rudolph.api.ruDolphApi.zs_clf`; see `rudolph_jax.tasks.class_perplexities`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from experiments.evaluation.methods.few_shot import classes_without
from experiments.evaluation.methods.zero_shot import TOP, class_tables
from experiments.evaluation.metrics import classification
from experiments.evaluation.prompts.class_names import fill, load_class_names, read_class_names
from experiments.evaluation.prompts.class_prompts import own_names
from experiments.evaluation.sets import RECORDS, LabelledSet
from experiments.evaluation.sets.loader import find_path
from experiments.evaluation.sets.record import BUILTIN

TEMPLATE = "на картинке изображено: {}"  # of the original's notebook on CIFAR10


def class_captions(
    images: LabelledSet, template: str = TEMPLATE, file: Path | None = None
) -> tuple[list[str], dict[str, Any]]:
    """A caption for each class, in the set's order, and where its name is from.

    template: {} is the name, {genitive} and others its cases, where the names have them. file: of
    class names, in place of the project's; a user's own set without one has its own names.
    """
    record = RECORDS.get(images.name)
    if file is None and (record is None or record.source == BUILTIN):
        forms: list[Any] = [{"nominative": name} for name in own_names(images)]
        source: dict[str, Any] = {"names": "the set's"}
    else:
        names = read_class_names(find_path(file)) if file else load_class_names(images.name, "ru")
        forms = [names.names[names.key(name)] for name in images.class_names]
        source = {"names": names.set_name, "version": names.version, "sha256": names.sha256}
    try:
        captions = [fill(template, each) for each in forms]
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"template {template!r} cannot be filled ({error!r}); expected one {{}} for the class, "
            "or a case that all classes have, such as {genitive}"
        ) from error
    if len(set(captions)) < len(captions):
        raise InputError(
            f"template {template!r} gives two classes the same caption; expected {{}} in it, and "
            "names that differ"
        )
    return captions, source


def measure(
    labels: np.ndarray, perplexities: np.ndarray, class_names: tuple[str, ...], metric: str
) -> dict[str, Any]:
    """Measures float32[N, classes], low is good, for JSON. metric: of `classification.METRICS`."""
    scores, predicted = -perplexities, perplexities.argmin(axis=1)
    return {
        "metric": metric,
        "value": classification.METRICS[metric](labels, scores),
        "accuracy": classification.accuracy(labels, predicted),
        f"top{TOP}": classification.top_k_accuracy(labels, scores, TOP),
        "mean_per_class": classification.mean_per_class(labels, predicted),
        "macro_f1": classification.macro_f1(labels, predicted),
        "classes_without_test": classes_without(
            np.bincount(labels, minlength=len(class_names)), class_names
        ),
        **class_tables(labels, predicted, class_names),
    }
