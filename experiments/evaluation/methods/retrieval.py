"""Ranks captions of images among many, and images of captions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from clip_jax import Predictor, PretrainedClip

RECALLS = (1, 5, 10)


@dataclasses.dataclass(frozen=True)
class RetrievalResult:
    """ranks: int[N], how many candidates came before the right one (0: it was first).

    best: int[N, 5], the candidates most like each image, best first.
    """

    ranks: np.ndarray
    best: np.ndarray

    def recall(self, k: int) -> float:
        """The share of images whose right caption is among the first k."""
        return float((self.ranks < k).mean())


def retrieve(
    clip: PretrainedClip,
    images: Sequence[Any],
    answers: Sequence[int],
    candidates: Sequence[str],
    batch_size: int = 256,
) -> RetrievalResult:
    """Ranks the candidate captions for each image. answers: indices into candidates."""
    predictor = Predictor(clip, ["{}"], batch_size=batch_size, quiet=True)
    texts = predictor.get_text_latents(candidates)
    return rank(predictor.get_image_latents(images) @ texts.T, answers)


def rank(similarities: np.ndarray, answers: Sequence[int | Sequence[int]]) -> RetrievalResult:
    """similarities: float[N, candidates]. answers: of each row the right one, or several.

    Of several the first to come counts. A tie with it counts against it.
    """
    right = np.zeros(similarities.shape, bool)
    for row, own in enumerate(answers):
        right[row, own] = True
    own = np.where(right, similarities, -np.inf).max(axis=1, keepdims=True)
    ranks = ((similarities >= own) & ~right).sum(axis=1)
    return RetrievalResult(ranks, np.argsort(-similarities, axis=1, kind="stable")[:, :5])


def rank_latents(
    queries: np.ndarray,
    candidates: np.ndarray,
    answers: Sequence[int | Sequence[int]],
    rows: int = 1024,
) -> RetrievalResult:
    """The same for unit rows float32[N, E] and float32[candidates, E], some rows at a time."""
    parts = [
        rank(queries[start : start + rows] @ candidates.T, answers[start : start + rows])
        for start in range(0, len(queries), rows)
    ]
    return RetrievalResult(
        np.concatenate([part.ranks for part in parts]),
        np.concatenate([part.best for part in parts]),
    )


@dataclasses.dataclass(frozen=True)
class BothWays:
    """texts: the captions found for images. images: the images found for captions."""

    texts: RetrievalResult
    images: RetrievalResult

    def recalls(self) -> dict[str, dict[str, float]]:
        return {
            "image_to_text": {f"recall@{k}": self.texts.recall(k) for k in RECALLS},
            "text_to_image": {f"recall@{k}": self.images.recall(k) for k in RECALLS},
        }


@dataclasses.dataclass(frozen=True)
class Captions:
    """texts: each once. image_to_captions: of each image its captions, as places in texts."""

    texts: list[str]
    image_to_captions: list[list[int]]

    @property
    def caption_to_images(self) -> list[list[int]]:
        """Map each text to its images: a text of several images is right for each of them."""
        found: list[list[int]] = [[] for _ in self.texts]
        for image, captions in enumerate(self.image_to_captions):
            for caption in captions:
                found[caption].append(image)
        return found


def number(captions: Sequence[Sequence[str]]) -> Captions:
    """captions: of each image, one or more; equal texts become one."""
    texts = list(dict.fromkeys(text for several in captions for text in several))
    places = {text: place for place, text in enumerate(texts)}
    return Captions(texts, [[places[text] for text in several] for several in captions])


def retrieve_both(images: np.ndarray, texts: np.ndarray, captions: Captions) -> BothWays:
    """images: float32[N, E]; texts: float32[len(captions.texts), E]; unit rows both."""
    return BothWays(
        rank_latents(images, texts, captions.image_to_captions),
        rank_latents(texts, images, captions.caption_to_images),
    )
