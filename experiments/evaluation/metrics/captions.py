"""Scores captions against what people wrote: BLEU, chrF, a METEOR without synonyms, CIDEr-D."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from clip_jax.errors import InputError
from experiments.evaluation.metrics.cider import cider

PACKAGES = ("sacrebleu", "nltk")


def caption_metrics(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Scores the captions of a set of images. references: of each image, one or more.

    {"bleu", "chrf": 0 to 100, of the whole set; "meteor_like": 0 to 1, "cider": 0 to 10, means over
    images; "signatures": how sacrebleu counted}. Letters' case counts nowhere.

    bleu, chrf: sacrebleu's (Post 2018), smoothing as it comes. meteor_like: nltk's METEOR (Banerjee
    and Lavie 2005) with words and Russian stems, and without the synonyms of a WordNet: of other
    METEORs only the order is to be compared. Captions that are none, or packages that are not
    installed, raise InputError.
    """
    if len(captions) != len(references) or not captions or not all(references):
        raise InputError(
            f"{len(captions)} captions and references of {len(references)} images; expected as "
            "many of both, and a reference of each"
        )
    metrics = _package("sacrebleu.metrics")
    streams = _streams(references)
    bleu, chrf = metrics.BLEU(lowercase=True), metrics.CHRF(lowercase=True)
    scores = {
        "bleu": bleu.corpus_score(list(captions), streams).score,
        "chrf": chrf.corpus_score(list(captions), streams).score,
    }
    candidates = [words(caption) for caption in captions]
    wanted = [[words(text) for text in several] for several in references]
    return {
        **scores,
        "meteor_like": float(np.mean(_meteor_like(candidates, wanted))),
        "cider": float(np.mean(cider(candidates, wanted))),
        "signatures": {
            "bleu": str(bleu.get_signature()), "chrf": str(chrf.get_signature()),
        },
    }  # fmt: skip


def words(text: str) -> tuple[str, ...]:
    """In lower case, without punctuation, as COCO's tokenizer leaves it out."""
    return tuple(re.findall(r"\w+", text.lower()))


class _NoSynonyms:
    """Stands for a WordNet."""

    def synsets(self, word: str) -> list[Any]:
        return []


def _meteor_like(
    candidates: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> list[float]:
    meteor = _package("nltk.translate.meteor_score").meteor_score
    stemmer = _package("nltk.stem.snowball").SnowballStemmer("russian")
    return [
        meteor([list(r) for r in several], list(own), stemmer=stemmer, wordnet=_NoSynonyms())
        for own, several in zip(candidates, references, strict=True)
    ]


def _streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """sacrebleu's form: the first reference of every image, the second, ... None: no more."""
    most = max(map(len, references))
    return [
        [several[i] if i < len(several) else None for several in references] for i in range(most)
    ]


def _package(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"captions are scored with {' and '.join(PACKAGES)}; {error.name} is not installed: "
            "pip install 'rudolph-jax[evaluation]'"
        ) from error
