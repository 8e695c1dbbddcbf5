"""Measures of classification for the report: scikit-learn's, and those that it does not have.

scikit-learn takes more than a second to import, so that it is imported by the first call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from clip_jax.errors import InputError


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of int[N] that agree."""
    return float((labels == predicted).mean())


def top_k_accuracy(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of rows of float[N, classes] whose own class is among the k highest.

    Among equal scores the later class comes first.
    """
    from sklearn.metrics import top_k_accuracy_score

    classes = np.arange(scores.shape[1])
    if k >= len(classes):  # scikit-learn warns that the score says nothing
        return 1.0
    return float(top_k_accuracy_score(labels, scores, k=k, labels=classes))


def mean_per_class(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur of the share of each that is right."""
    return float(np.mean(list(per_class(labels, predicted).values())))


def per_class(labels: np.ndarray, predicted: np.ndarray) -> dict[int, float]:
    """Class -> share of its images that are right, for each class that occurs."""
    from sklearn.metrics import recall_score

    occurring = np.unique(labels)
    recalls = recall_score(labels, predicted, labels=occurring, average=None)
    return dict(zip(occurring.tolist(), recalls.tolist(), strict=True))


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 over the classes that occur among labels or predictions."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, average="macro"))


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Chance that an image of class 1 gets a higher score than one of class 0; a tie is half.

    labels: int[N] of 0 and 1. scores: float[N].
    """
    from sklearn.metrics import roc_auc_score

    found = np.unique(labels).tolist()
    if found != [0, 1]:
        raise InputError(
            f"ROC-AUC of labels {', '.join(map(str, found))}; expected both 0 and 1, and no other"
        )
    return float(roc_auc_score(labels, scores))


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Predictions by confidence, in bins of equal width, each open at the left.

    counts: int[bins]. confidence, accuracy: float[bins], means of a bin; NaN where it is empty.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def expected_error(self) -> float:
        """Mean distance of confidence and accuracy, by counts (Guo et al. 2017, equation 3)."""
        filled = self.counts > 0
        distances = np.abs(self.confidence - self.accuracy)[filled]
        return float(np.average(distances, weights=self.counts[filled]))


def reliability(labels: np.ndarray, probabilities: np.ndarray, bins: int = 15) -> Reliability:
    """Bin the probability of the likeliest class of float[N, classes]: counts, means, accuracy."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    place = np.searchsorted(inner, confidence)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, x, bins) / counts for x in (confidence, right)]
    return Reliability(counts, *means)


def confused_pairs(matrix: np.ndarray, most: int = 20) -> list[tuple[int, int, int]]:
    """(label, prediction, count) of the most frequent mistakes, most frequent first."""
    wrong = matrix * (1 - np.eye(len(matrix), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(place), len(matrix)) for place in order]
    return [(i, j, int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def _roc_auc_of_classes(labels: np.ndarray, scores: np.ndarray) -> float:
    if scores.shape[1] != 2:
        raise InputError(f"ROC-AUC of {scores.shape[1]} classes; expected 2")
    # The softmax's second probability grows with it, and would round small ones to ties.
    return roc_auc(labels, scores[:, 1].astype(np.float64) - scores[:, 0])


# By the name that a set's record has: (labels, float[N, classes], logits or cosines).
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda labels, scores: accuracy(labels, scores.argmax(axis=1)),
    "mean_per_class": lambda labels, scores: mean_per_class(labels, scores.argmax(axis=1)),
    "roc_auc": _roc_auc_of_classes,
}


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation; 0 for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
