"""RUDOLPH's examples: the texts of a row in the form of a task, without the image's codes.

    task            left text                   image           right text
    text to image   LT_T2I caption              codes           padding
    image to text   LT_I2T, no text             codes           RT_I2T caption
    text to text    LT_T2T caption              codes           padding
    question        LT_*QA context, question    codes or zeros  RT_*QA answer

A share of them has LT_UNK and RT_UNK instead, as the original had in its pretraining. A caption
never stands on both sides, where the right one could be copied from the left.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from clip_jax.tokenizer import Tokenizer
from experiments.config.objective import RudolphSettings
from experiments.data.source import Split
from rudolph_jax.config import RudolphConfig
from rudolph_jax.image_to_text import QUESTIONS
from rudolph_jax.layout import PAD, Layout
from rudolph_jax.text_encoding import encode_left, encode_text

REMEMBERED = 100_000  # encoded texts


class Question(NamedTuple):
    """context: "" where the question is on an image, or says all."""

    question: str
    answers: list[str]
    context: str


Texts = list[str] | Question  # captions, or a question


class TaskFormatter:
    """Samples of a row's texts, with the special tokens of `rudolph_jax.image_to_text`."""

    def __init__(
        self, split: Split, model: RudolphConfig, settings: RudolphSettings, tokenizer: Tokenizer
    ) -> None:
        """A split without the texts that the tasks are made of raises InputError."""
        if settings.asks:
            split.require_questions()
        else:
            split.require_captions()
        self._model, self._settings, self._tokenizer = model, settings, tokenizer
        self._layout = Layout(model)
        # Small sets draw the same texts again and again.
        self._encoded: dict[tuple[str, str, int | None, int], np.ndarray] = {}

    def read(self, row: dict[str, Any]) -> Texts:
        """Returns what `sample` needs of a row."""
        if self._settings.asks:
            return Question(row["question"], row["answers"], row.get("context", ""))
        return row["captions"]

    def sample(self, texts: Texts, rng: np.random.Generator) -> np.ndarray:
        """int32[T], zeros in the codes' place."""
        tasks, layout = self._settings.tasks, self._layout
        shares = np.cumsum(list(tasks.values())) / sum(tasks.values())
        task = list(tasks)[int(np.searchsorted(shares, rng.random(), side="right"))]
        choices = texts.answers if isinstance(texts, Question) else texts
        text = choices[rng.integers(len(choices))]
        use_task_token = rng.random() >= self._settings.unknown_token_share
        ids = np.full(layout.sequence_length, PAD, np.int32)
        if isinstance(texts, Question):
            left, right = QUESTIONS[self._settings.question_about if use_task_token else "plain"]
            ids[layout.left] = self._encode(texts.question, left, layout.left, texts.context)
            ids[layout.right] = self._encode(text, right, layout.right)
        elif task == "image_to_text":
            token = "LT_I2T" if use_task_token else "LT_UNK"
            ids[layout.left] = encode_left(self._tokenizer, self._model, "", token)
            token = "RT_I2T" if use_task_token else "RT_UNK"
            ids[layout.right] = self._encode(text, token, layout.right)
        else:
            token = "LT_T2I" if task == "text_to_image" else "LT_T2T"
            ids[layout.left] = self._encode(
                text, token if use_task_token else "LT_UNK", layout.left
            )
        return ids

    def _encode(self, text: str, token: str, place: slice, context: str = "") -> np.ndarray:
        """Encodes a text; one too long is cut without a warning: training sets hold many."""
        special = self._layout.special_id(token) if self._model.text_special_tokens else None
        key = text, context, special, place.start
        if key not in self._encoded:
            if len(self._encoded) >= REMEMBERED:
                self._encoded.clear()
            length = place.stop - place.start
            self._encoded[key] = encode_text(self._tokenizer, text, length, special, context)[0]
        return self._encoded[key]
