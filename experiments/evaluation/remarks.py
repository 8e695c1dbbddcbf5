"""Says in words what a number lacks: images left out, classes without any, what was ignored."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from clip_jax.errors import PartialResultError
from clip_jax.text import escape
from experiments.evaluation.console import print_line
from experiments.evaluation.methods.few_shot import classes_without

LISTED = 20  # unreadable images of a result that are printed; its JSON has all
NAMED = 5  # classes or images of a list that are named
LACKING = {
    "classes_without_training": "without training images, which are never predicted",
    "classes_without_validation": "without validation images",
    "classes_without_test": "without test images, on which nothing is measured",
}


def left_out(result: Mapping[str, Any]) -> str:
    """ ", 2 of 21 images left out", or nothing: the end of a printed line."""
    count = len(result.get("unreadable", ()))
    return f", {count} of {result['images']} images left out" if count else ""


def shots_found(row: Mapping[str, Any]) -> str:
    """Images a class of one row of a probe: "16", or "16 (4 to 16 found)" of small classes."""
    validation = ""
    if row["validation_found"]["classes_with_fewer"]:
        found = _span(row["validation_found"])
        validation = f"; {row['validation_shots']} for validation, {found} found"
    short = row["found"]["classes_with_fewer"] or row["shots"] == "all"
    if not short and not validation:
        return str(row["shots"])
    return f"{row['shots']} ({_span(row['found'])} found{validation})"


def remarks(result: Mapping[str, Any]) -> list[str]:
    """Lines about a number that is of less than was requested, most serious first.

    Results of any task; what a task does not have is not mentioned.
    """
    lines = []
    unreadable = result.get("unreadable", ())
    if unreadable:
        first = unreadable[0]
        lines.append(
            f"{len(unreadable)} of {result['images']} images cannot be read and are left out, "
            f"{escape(first['split'])} {escape(first['key'])} say: {first['why']}"
        )
    for field, words in LACKING.items():
        if result.get(field):
            lines.append(f"{_classes(result[field])} {words}")
    rows = result.get("shots", ())
    for found, shots, images in (
        ("found", "shots", "training images than the"),
        ("validation_found", "validation_shots", "images for validation than the"),
    ):
        short = [row for row in rows if row[found]["classes_with_fewer"]]
        if short:
            most = max(short, key=lambda row: row[shots])
            fewer = most[found]["classes_with_fewer"]
            named = [f"{name} {count}" for name, count in fewer.items()]
            lines.append(f"{_classes(named)} with fewer {images} {most[shots]} asked for")
    return lines + [f"ignored: {line}" for line in result.get("ignored", ())]


def is_partial(result: Mapping[str, Any]) -> bool:
    """Returns whether the number covers less than was requested."""
    return any(not line.startswith("ignored: ") for line in remarks(result))


def _span(found: Mapping[str, Any]) -> str:
    fewest, most = found["fewest"], found["most"]
    return str(most) if fewest == most else f"{fewest} to {most}"


def _classes(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    noun = "class" if len(names) == 1 else "classes"
    return f"{len(names)} {noun} ({escape(', '.join(names[:NAMED]))}{more})"


class Remarks:
    """Prints the remarks on all results of a command, each once, and ends it where images lack."""

    def __init__(self) -> None:
        self._printed: set[str] = set()
        self._left_out: set[tuple[str, str, str]] = set()

    def print(self, system: str, result: Mapping[str, Any]) -> None:
        """Prints what a result lacks; names of unreadable images go to stderr."""
        name, rows = result["set"], result["unreadable"]
        for row in rows[:LISTED]:
            self._once(f"left out: {name} {row['split']} {row['key']}: {row['why']}", stderr=True)
        if len(rows) > LISTED:
            self._once(f"left out: {name}: {len(rows) - LISTED} more images", stderr=True)
        for line in remarks(result):
            own = line.startswith("ignored: ")  # of the set, whatever the system
            self._once(f"{name}: {line}" if own else f"{system}  {name}: {line}", stderr=own)
        self._left_out |= {(name, row["split"], row["key"]) for row in rows}

    def finish(self) -> None:
        """Raises PartialResultError where any result left images out."""
        count = len(self._left_out)
        if count:
            noun = "image" if count == 1 else "images"
            name, split, key = min(self._left_out)
            raise PartialResultError(
                f"{count} {noun} could not be read and did not take part, {escape(name)} "
                f"{escape(split)} {escape(key)} say; the results list them under 'unreadable'"
            )

    def _once(self, line: str, stderr: bool) -> None:
        if line not in self._printed:
            self._printed.add(line)
            print_line(line, **({"file": sys.stderr} if stderr else {}))


class LogOnce:
    """Writes the remarks on an evaluator of a training run to stderr, each once.

    Above a progress bar where there is one.
    """

    def __init__(self, evaluator: str) -> None:
        self._evaluator = evaluator
        self._printed: set[str] = set()

    def write_remarks(self, **result: object) -> None:
        """Writes the remarks on a result, of which only what they need is given."""
        for line in remarks(result):
            self.write_line(line)

    def write_line(self, line: str) -> None:
        # All processes evaluate, and find the same.
        if line not in self._printed and jax.process_index() == 0:
            tqdm.write(f"{self._evaluator}: {line}", file=sys.stderr)
        self._printed.add(line)

    def write_classes(
        self, training: np.ndarray, test: np.ndarray, class_names: tuple[str, ...]
    ) -> None:
        """Writes which classes the labels of either split lack."""
        counts = [np.bincount(labels, minlength=len(class_names)) for labels in (training, test)]
        self.write_remarks(
            classes_without_training=classes_without(counts[0], class_names),
            classes_without_test=classes_without(counts[1], class_names),
        )
