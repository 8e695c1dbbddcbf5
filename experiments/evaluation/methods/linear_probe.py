"""Fits few-shot linear probes: logistic regression on the features of an image tower.

Radford et al. 2021, A.3: the penalty is chosen on validation images, from seven values two
decades apart, then around the best one at halved steps down to an eighth of a decade.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from experiments.evaluation.methods.few_shot import VALIDATION_SHOTS, FewShotPool, sample_shots
from experiments.evaluation.methods.logistic_regression import Classifier, LogisticRegressionFit
from experiments.evaluation.metrics import classification

# Logarithms of C to base 10.
FIRST = tuple(range(-6, 7, 2))
STEPS = (1.0, 0.5, 0.25, 0.125)


@dataclasses.dataclass(frozen=True)
class Features:
    """values: float32[N, D] of a set's images in its order. labels: int[N]."""

    values: np.ndarray
    labels: np.ndarray

    def at(self, places: np.ndarray) -> Features:
        return Features(self.values[places], self.labels[places])


@dataclasses.dataclass(frozen=True)
class ProbeTask:
    """Describes one draw of a probe: where images come from and what is measured.

    learned, chosen: pools of places in train and in validation, which may be the same features.
    metric: a name of `classification.METRICS`. classes: how many there are.
    """

    train: Features
    validation: Features
    test: Features
    learned: FewShotPool
    chosen: FewShotPool
    metric: str
    classes: int
    devices: Sequence[jax.Device] | None = None


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """value: on all test images. C: the penalty chosen. train, validation: places drawn."""

    value: float
    C: float
    train: np.ndarray
    validation: np.ndarray


def probe(task: ProbeTask, shots: int | None, seed: int, number: int = 0) -> ProbeResult:
    """Fit on one draw of `shots` images a class, or on all images (None).

    With shots, min(shots, 4) validation images a class choose the penalty (CoOp's way) and are
    not learned from, so that k shots are k. With all, the classifier is fitted again on both.
    """
    if shots is None:
        train, validation = task.learned.places, task.chosen.places
    else:
        train = sample_shots(task.learned, shots, seed, number)
        validation = sample_shots(task.chosen, min(shots, VALIDATION_SHOTS), seed, number)
    known, held = task.train.at(train), task.validation.at(validation)
    problem = LogisticRegressionFit(known.values, known.labels, task.classes, task.devices)
    best = choose_penalty(problem, held, task.metric)
    fitted = best.classifier
    if shots is None:
        both = np.concatenate([known.values, held.values])
        labels = np.concatenate([known.labels, held.labels])
        fitted = LogisticRegressionFit(both, labels, task.classes, task.devices).fit(best.C, fitted)
    value = classification.METRICS[task.metric](task.test.labels, fitted.scores(task.test.values))
    return ProbeResult(value, best.C, train, validation)


@dataclasses.dataclass(frozen=True)
class PenaltyChoice:
    C: float
    classifier: Classifier


def choose_penalty(problem: LogisticRegressionFit, held: Features, metric: str) -> PenaltyChoice:
    """Finds the C whose classifier is best by the metric on held-out images.

    Of equal ones, of which few images leave many, the smallest: the strongest penalty.
    """
    # A metric of two classes needs both.
    measure = classification.METRICS[metric if len(np.unique(held.labels)) > 1 else "accuracy"]
    tried: dict[float, tuple[float, Classifier]] = {}

    def attempt(exponent: float) -> None:
        if exponent in tried or not FIRST[0] <= exponent <= FIRST[-1]:
            return
        stronger = [known for known in tried if known < exponent]
        start = tried[max(stronger)][1] if stronger else None
        classifier = problem.fit(10.0**exponent, start)
        tried[exponent] = measure(held.labels, classifier.scores(held.values)), classifier

    def best() -> float:
        return max(sorted(tried), key=lambda exponent: tried[exponent][0])

    for exponent in FIRST:
        attempt(float(exponent))
    for step in STEPS:
        centre = best()
        attempt(centre - step)
        attempt(centre + step)
    return PenaltyChoice(10.0 ** best(), tried[best()][1])
