"""What a demonstration found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.evaluation import figures
from experiments.evaluation.page import Picture, Section, Table
from experiments.metrics import read_metrics


@dataclasses.dataclass(frozen=True)
class Outcome:
    """scores: name -> share in [0, 1], all measured in this run. sections: of the page."""

    title: str
    lead: str
    scores: Mapping[str, float]
    sections: Sequence[Section]

    def summary(self) -> str:
        """The scores as lines for a console."""
        width = max(map(len, self.scores))
        return "\n".join(f"{name:{width}}  {percent(v)}" for name, v in self.scores.items())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def score_table(what: str, scores: Mapping[str, float]) -> Table:
    return Table((what, "share"), [(name, percent(value)) for name, value in scores.items()])


def loss_section(workdir: Path, note: str) -> Section:
    """The loss curve of the run in a folder."""
    rows = [row for row in read_metrics(workdir) if "train/loss" in row]
    png = figures.loss_curve([row["step"] for row in rows], [row["train/loss"] for row in rows])
    return Section("Training loss", note, Picture("loss", png, "Loss by step"))
