"""Scores written answers against the right ones: exact match and F1, as SQuAD counts them.

Source: Rajpurkar et al. 2016, section 6.1, and its evaluation script (version 1.1).
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

from clip_jax.errors import InputError

ARTICLES = re.compile(r"\b(a|an|the)\b")  # English alone: Russian has none
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII: « and » count as letters


def normalize(text: str) -> str:
    """Lower case, without punctuation and articles, one space between words."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_PUNCTUATION)).split())


def exact_match(answer: str, right: str) -> float:
    """1 where the two are the same, 0 elsewhere."""
    return float(normalize(answer) == normalize(right))


def f1(answer: str, right: str) -> float:
    """Harmonic mean of the shares of either's words that the other has too, 0 to 1.

    Two texts without words are alike (SQuAD's script 2.0; 1.1 had none).
    """
    words, wanted = normalize(answer).split(), normalize(right).split()
    if not (words and wanted):
        return float(words == wanted)
    shared = (Counter(words) & Counter(wanted)).total()
    return 2 * shared / (len(words) + len(wanted))


def score_answers(answers: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """{"exact_match", "f1"}: means over questions, each by the right answer that suits it best.

    right: of each question, at least one.
    """
    if len(answers) != len(right) or not answers or not all(right):
        raise InputError(
            f"{len(answers)} answers and right ones to {len(right)} questions; expected as many of "
            "both, and a right one to each"
        )

    def mean(metric: Callable[[str, str], float]) -> float:
        best = [
            max(metric(answer, each) for each in accepted)
            for answer, accepted in zip(answers, right, strict=True)
        ]
        return sum(best) / len(best)

    return {"exact_match": mean(exact_match), "f1": mean(f1)}
