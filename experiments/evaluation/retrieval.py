"""Retrieval of a picture's caption among many."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip


@dataclasses.dataclass(frozen=True)
class RetrievalResult:
    """ranks: int[N], how many candidates came before the right one (0: it was first).

    best: int[N, 5], the candidates most like each picture, best first.
    """

    ranks: np.ndarray
    best: np.ndarray

    def recall(self, k: int) -> float:
        """The share of pictures whose right caption is among the first k."""
        return float((self.ranks < k).mean())


def retrieve(
    clip: PretrainedClip,
    images: Sequence[Any],
    answers: Sequence[int],
    candidates: Sequence[str],
    batch_size: int = 256,
) -> RetrievalResult:
    """Ranks the candidate captions for each picture. answers: indices into candidates."""
    predictor = Predictor(clip, ["{}"], batch_size=batch_size, quiet=True)
    texts = predictor.get_text_latents(candidates)
    return rank(predictor.get_image_latents(images) @ texts.T, np.asarray(answers))


def rank(similarities: np.ndarray, answers: np.ndarray) -> RetrievalResult:
    """similarities: float[N, candidates]. A tie with the right candidate counts against it."""
    own = similarities[np.arange(len(answers)), answers][:, None]
    ranks = (similarities >= own).sum(axis=1) - 1
    return RetrievalResult(ranks, np.argsort(-similarities, axis=1, kind="stable")[:, :5])
