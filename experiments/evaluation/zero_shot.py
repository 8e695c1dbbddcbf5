"""Zero-shot classification of a labelled split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip


@dataclasses.dataclass(frozen=True)
class ZeroShotResult:
    """labels, predicted: int[N]. similarities: float32[N, classes], cosines."""

    labels: np.ndarray
    predicted: np.ndarray
    similarities: np.ndarray

    @property
    def accuracy(self) -> float:
        return float((self.labels == self.predicted).mean())


def zero_shot(
    clip: PretrainedClip,
    images: Sequence[Any],
    labels: Sequence[int],
    class_names: Sequence[str],
    templates: Sequence[str],
    batch_size: int = 256,
) -> ZeroShotResult:
    """Names each picture with the class whose prompts are most like it.

    images: whatever `clip_jax.image.open_image` takes. labels: indices into class_names.
    """
    predictor = Predictor(clip, templates, batch_size=batch_size, quiet=True)
    class_latents = predictor.get_text_latents(class_names)
    similarities = predictor.get_image_latents(images) @ class_latents.T
    return ZeroShotResult(np.asarray(labels), similarities.argmax(axis=1), similarities)
