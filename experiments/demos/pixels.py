"""Compares pixels: baselines that a model must beat, and the classifier of drawings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from clip_jax.config import WHITE
from clip_jax.image import open_image, to_rgb

NEIGHBOUR_SIZE = 16  # side to which images shrink before their pixels are compared


def pixel_features(images: Sequence[bytes], size: int = NEIGHBOUR_SIZE) -> np.ndarray:
    """float32[N, size * size * 3] in [0, 1]."""
    rows = [
        np.asarray(
            to_rgb(open_image(image), WHITE).resize((size, size), Image.Resampling.BICUBIC)
        ).ravel()
        for image in images
    ]
    return np.stack(rows).astype(np.float32) / 255


def pixel_similarities(queries: np.ndarray, references: np.ndarray) -> np.ndarray:
    """float32[Q, R]: minus the squared distance of each query to each reference."""
    products = 2 * queries @ references.T
    return products - (queries**2).sum(1)[:, None] - (references**2).sum(1)[None]


def nearest_labels(
    queries: np.ndarray, references: np.ndarray, labels: Sequence[int]
) -> np.ndarray:
    """int[Q]: the label of the nearest reference."""
    return np.asarray(labels)[pixel_similarities(queries, references).argmax(axis=1)]


def logistic_regression(
    features: np.ndarray, labels: Sequence[int], queries: np.ndarray
) -> np.ndarray:
    """int[Q]: scikit-learn's multinomial logistic regression, fitted on features and labels."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000).fit(features, labels).predict(queries)


class PixelClassifier:
    """A support vector machine from scikit-learn on pixels, trained on labelled images."""

    def __init__(self, images: np.ndarray, labels: Sequence[int]) -> None:
        """images: uint8[N, H, W, 3], decoded by the image tokenizer, as those to classify are."""
        from sklearn.svm import SVC

        self._machine = SVC(C=10.0).fit(pixel_features(list(images)), labels)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """int[...]: the classes of uint8[..., H, W, 3]."""
        flat = images.reshape(-1, *images.shape[-3:])
        return self._machine.predict(pixel_features(list(flat))).reshape(images.shape[:-3])
