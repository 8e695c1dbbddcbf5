"""The remarks on all results of a command: each is printed once, and what was left out ends it."""

from __future__ import annotations

import sys

from clip_jax.errors import PartialResultError
from clip_jax.text import escape
from experiments.evaluation.remarks import remarks
from experiments.evaluation.results import Result
from experiments.evaluation.tasks import options

LISTED = 20  # images of a result that are printed; its JSON has all


class Remarks:
    """Collects what the results of one command leave out."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._left_out: set[tuple[str, str, str]] = set()

    def say(self, system: str, result: Result) -> None:
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
        if line not in self._said:
            self._said.add(line)
            options.say(line, **({"file": sys.stderr} if stderr else {}))
