"""Computes CIDEr-D: how far a caption says what people do, in words that tell images apart.

Source: Vedantam et al. 2015, "CIDEr: Consensus-based Image Description Evaluation", sections 3 and
5. Numbers equal those of COCO's `pycocoevalcap`, whose package carries 100 MB and wants Java.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

LONGEST = 4  # n-grams of 1 to 4 words
SIGMA = 6.0  # of the penalty for another length, in words
SCALE = 10.0

Words = Sequence[str]
Vectors = list[dict[Words, float]]  # of each n, n-gram to weight


def cider(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> np.ndarray:
    """float64[N], 0 to 10: of each candidate against the references of its image.

    Words count by how few of the N images have them in a reference, so that the score of one
    image depends on the others; of a single image it is 0.
    """
    counted = [[_counts(words) for words in several] for several in references]
    # In how many images' references an n-gram is.
    frequency = Counter(
        gram for several in counted for gram in {g for counts in several for g in counts}
    )
    scores = []
    for words, own, several in zip(candidates, references, counted, strict=True):
        vectors = _weigh(_counts(words), frequency, len(references))
        likeness = [
            _likeness(vectors, _weigh(counts, frequency, len(references)), len(words) - len(other))
            for other, counts in zip(own, several, strict=True)
        ]
        scores.append(SCALE * float(np.mean(likeness)))
    return np.array(scores)


def _counts(words: Words) -> Counter[tuple[str, ...]]:
    return Counter(
        tuple(words[i : i + n])
        for n in range(1, LONGEST + 1)
        for i in range(len(words) - n + 1)
    )


def _weigh(counts: Counter, frequency: Counter, images: int) -> Vectors:
    """Counts times the logarithm of images per image that has the n-gram (equation 1)."""
    vectors: Vectors = [{} for _ in range(LONGEST)]
    for gram, count in counts.items():
        weight = math.log(images / max(frequency[gram], 1))
        vectors[len(gram) - 1][gram] = count * weight
    return vectors


def _likeness(candidate: Vectors, reference: Vectors, longer: int) -> float:
    """Mean over n of cosines, with weights clipped to the reference's (equation 4)."""
    cosines = []
    for own, other in zip(candidate, reference, strict=True):
        product = sum(min(own[gram], other[gram]) * other[gram] for gram in own.keys() & other)
        norms = math.hypot(*own.values()) * math.hypot(*other.values())
        cosines.append(product / norms if norms else 0.0)
    return float(np.mean(cosines)) * math.exp(-(longer**2) / (2 * SIGMA**2))
