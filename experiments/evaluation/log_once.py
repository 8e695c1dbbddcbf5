"""Lines of an evaluator of a training run, which works again and again and says a thing once."""

from __future__ import annotations

import sys

import numpy as np
from tqdm import tqdm

from experiments.evaluation.methods.few_shot import classes_without
from experiments.evaluation.remarks import remarks


class LogOnce:
    """Writes lines to stderr, each once, above a progress bar where there is one."""

    def __init__(self, evaluator: str) -> None:
        self._evaluator = evaluator
        self._said: set[str] = set()

    def say(self, **result: object) -> None:
        """Writes the remarks on a result, of which only what they need is given."""
        for line in remarks(result):
            self.say_line(line)

    def say_line(self, line: str) -> None:
        if line not in self._said:
            tqdm.write(f"{self._evaluator}: {line}", file=sys.stderr)
        self._said.add(line)

    def say_classes(
        self, training: np.ndarray, test: np.ndarray, class_names: tuple[str, ...]
    ) -> None:
        """The same of classes that the labels of either split lack."""
        counts = [np.bincount(labels, minlength=len(class_names)) for labels in (training, test)]
        self.say(
            classes_without_training=classes_without(counts[0], class_names),
            classes_without_test=classes_without(counts[1], class_names),
        )
