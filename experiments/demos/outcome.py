"""What a demonstration found."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.evaluation.report import figures
from experiments.evaluation.report.page import Picture, Section, Table
from experiments.training.metrics import read_metrics


@dataclasses.dataclass(frozen=True)
class Outcome:
    """scores: name -> share in [0, 1]; losses: name -> nats; all measured in this run.

    sections: of the page.
    """

    scores: Mapping[str, float]
    sections: Sequence[Section]
    losses: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def summary(self) -> str:
        """The figures as lines for a console."""
        lines = {name: percent(value) for name, value in self.scores.items()}
        lines |= {name: nats(value) for name, value in self.losses.items()}
        width = max(map(len, lines))
        return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def nats(loss: float) -> str:
    return f"{loss:.3f} nats"


def score_table(what: str, scores: Mapping[str, float]) -> Table:
    return Table((what, "share"), [(name, percent(value)) for name, value in scores.items()])


def loss_section(workdir: Path, model: str, label: str, note: str) -> Section:
    """The loss curve of the run in a folder. model: its name, also of the image's file."""
    rows = [row for row in read_metrics(workdir) if "train/loss" in row]
    steps, losses = [row["step"] for row in rows], [row["train/loss"] for row in rows]
    png = figures.loss_curve(steps, losses, label)
    title = f"Training loss of {model}"
    return Section(title, note, Picture(f"loss-{model.lower()}", png, "Loss by step"))
