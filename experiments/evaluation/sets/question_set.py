"""A prepared set of questions, on images, on texts, or alone."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from experiments.data.source import Split
from experiments.evaluation.sets.labelled_set import LazyImages, hash_images, images_at
from experiments.evaluation.sets.loader import find_path


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionSet:
    """Hold one split of N questions.

    answers: the right ones of each.
    contexts: the texts that the questions are about, "" where there is none.
    images: N encoded files, or N times None.
    keys: N names of questions.
    """

    name: str
    split: str
    questions: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    contexts: tuple[str, ...]
    images: Sequence[bytes | None]
    has_images: bool
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.questions)

    def image(self, index: int) -> bytes | None:
        """Returns the encoded file of the index-th image."""
        return self.images[index]

    def at(self, places: Sequence[int]) -> QuestionSet:
        """Returns the questions at these places alone, in their order."""
        texts = {
            name: tuple(getattr(self, name)[place] for place in places)
            for name in ("questions", "answers", "contexts", "keys")
        }
        return dataclasses.replace(self, **texts, images=images_at(self.images, places))

    @functools.cached_property
    def source_hash(self) -> str:
        """Returns SHA-256 of all texts, and of 16 images spread evenly."""
        digest = hashlib.sha256()
        for row in zip(self.questions, self.contexts, self.answers, strict=True):
            digest.update("\t".join((row[0], row[1], *row[2], "\n")).encode())
        if self.has_images:
            hash_images(digest, self.images)
        return digest.hexdigest()


def open_questions(folder: str | Path, split: str = "test") -> QuestionSet:
    """Opens a split that `experiments.prepare` made; one without questions raises InputError."""
    opened = Split(find_path(folder), split)
    opened.require_questions()
    questions, answers, contexts = [], [], []
    for i in tqdm(range(len(opened)), f"questions of {folder}", disable=None, leave=False):
        row = opened[i]
        questions.append(row["question"])
        answers.append(tuple(row["answers"]))
        contexts.append(row.get("context", ""))
    images = [None] * len(questions)
    if opened.has_images:
        images = LazyImages(len(opened), lambda i: opened[i]["image"])
    return QuestionSet(
        str(folder), split, tuple(questions), tuple(answers), tuple(contexts), images,
        opened.has_images, tuple(f"{split}[{i}]" for i in range(len(questions))),
    )  # fmt: skip
