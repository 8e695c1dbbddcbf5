"""What predictions are worth: the measures of the report, in NumPy.

Each equals scikit-learn's function of the same kind, ties included, as its test has it.
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

    Of equal scores the later class comes first, as in scikit-learn's `top_k_accuracy_score`.
    """
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    later = np.arange(scores.shape[1]) > labels[:, None]
    before = (scores > own) | ((scores == own) & later)
    return float((before.sum(axis=1) < k).mean())


def mean_per_class(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean over the classes that occur of the share of each that is right."""
    return float(np.mean(list(per_class(labels, predicted).values())))


def per_class(labels: np.ndarray, predicted: np.ndarray) -> dict[int, float]:
    """Class -> share of its images that are right, for each class that occurs."""
    totals = np.bincount(labels)
    right = np.bincount(labels[labels == predicted], minlength=len(totals))
    return {int(c): float(right[c] / totals[c]) for c in np.flatnonzero(totals)}


def macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean F1 over the classes that occur among labels or predictions (scikit-learn's "macro")."""
    classes = max(labels.max(), predicted.max()) + 1
    right = np.bincount(labels[labels == predicted], minlength=classes)
    total = np.bincount(labels, minlength=classes) + np.bincount(predicted, minlength=classes)
    return float((2 * right[total > 0] / total[total > 0]).mean())


def roc_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Chance that an image of class 1 gets a higher score than one of class 0; a tie is half.

    labels: int[N] of 0 and 1. scores: float[N]. (Mann and Whitney's U by mean ranks.)
    """
    positives, negatives = int((labels == 1).sum()), int((labels == 0).sum())
    if not positives or positives + negatives != len(labels):
        found = ", ".join(map(str, np.unique(labels)))
        raise InputError(f"ROC-AUC of labels {found}; expected both 0 and 1, and no other")
    if not negatives:
        raise InputError("ROC-AUC of labels 1; expected both 0 and 1, and no other")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    ranks = (last - (counts - 1) / 2)[place]
    u = ranks[labels == 1].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities float64[N, classes]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


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
    """Of the likeliest class of float[N, classes]."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    place = np.searchsorted(inner, confidence)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, x, bins) / counts for x in (confidence, right)]
    return Reliability(counts, *means)


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """int[classes, classes]: rows by label, columns by prediction."""
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


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
