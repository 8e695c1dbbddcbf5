"""Classifies a labelled split zero-shot."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from clip_jax import Predictor, PretrainedClip
from experiments.evaluation.methods.few_shot import classes_without
from experiments.evaluation.metrics import classification

TOP = 5


@dataclasses.dataclass(frozen=True)
class ZeroShotResult:
    """labels, predicted: int[N]. similarities: float32[N, classes], cosines."""

    labels: np.ndarray
    predicted: np.ndarray
    similarities: np.ndarray

    @property
    def accuracy(self) -> float:
        return classification.accuracy(self.labels, self.predicted)


def zero_shot(
    clip: PretrainedClip,
    images: Sequence[Any],
    labels: Sequence[int],
    class_names: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> ZeroShotResult:
    """Names each image with the class whose prompts are most like it.

    images: whatever `clip_jax.image.open_image` takes. labels: indices into class_names.
    """
    predictor = Predictor(clip, templates, batch_size=batch_size, quiet=True)
    class_latents = predictor.get_text_latents(class_names)
    return compare(predictor.get_image_latents(images), class_latents, np.asarray(labels))


def compare(images: np.ndarray, classes: np.ndarray, labels: np.ndarray) -> ZeroShotResult:
    """images: float32[N, E], classes: float32[classes, E], unit rows both. labels: int[N]."""
    similarities = images @ classes.T
    return ZeroShotResult(labels, similarities.argmax(axis=1), similarities)


def measure(
    result: ZeroShotResult, class_names: Sequence[str], metric: str, logit_scale: float
) -> dict[str, Any]:
    """Measures a result, for JSON.

    metric: of `classification.METRICS`, the set's own, whose value is "value".
    logit_scale: what the model multiplies cosines by, so that their softmax is its probability.
    """
    labels, predicted = result.labels, result.predicted
    logits = (logit_scale * result.similarities).astype(np.float64)
    probabilities = softmax(logits, axis=1)
    bins = classification.reliability(labels, probabilities)
    return {
        "metric": metric,
        "value": classification.METRICS[metric](labels, result.similarities),
        "examples": len(labels),
        "accuracy": result.accuracy,
        f"top{TOP}": classification.top_k_accuracy(labels, result.similarities, TOP),
        "mean_per_class": classification.mean_per_class(labels, predicted),
        "classes_without_test": classes_without(
            np.bincount(labels, minlength=len(class_names)), class_names
        ),
        "calibration": {
            "expected_error": bins.expected_error,
            "bins": [
                {"count": int(count), "confidence": confidence, "accuracy": accuracy}
                for count, confidence, accuracy in zip(
                    bins.counts, bins.confidence.tolist(), bins.accuracy.tolist(), strict=True
                )
                if count
            ],
        },
        **class_tables(labels, predicted, class_names),
    }


def class_tables(
    labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """{"per_class": accuracies, "confused": the most frequent mistakes}, for JSON."""
    from sklearn.metrics import confusion_matrix

    matrix = confusion_matrix(labels, predicted, labels=range(len(class_names)))
    return {
        "per_class": [
            {"class": class_names[c], "examples": int(matrix[c].sum()), "accuracy": share}
            for c, share in classification.per_class(labels, predicted).items()
        ],
        "confused": [
            {"class": class_names[i], "taken_for": class_names[j], "count": count}
            for i, j, count in classification.confused_pairs(matrix)
        ],
    }
