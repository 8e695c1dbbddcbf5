"""Holds what a demonstration found, and makes the sections that all pages share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from clip_jax import Predictor, PretrainedClip
from clip_jax.image import open_image
from experiments.evaluation.report import figures
from experiments.evaluation.report.page import PngImage, Section, Table
from experiments.training.metrics import read_metrics


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """scores: name -> share in [0, 1]; losses: name -> nats; all measured in this run.

    sections: of the page.
    """

    scores: Mapping[str, float]
    sections: Sequence[Section]
    losses: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def rows(self) -> list[tuple[str, str]]:
        """The names and values of the figures."""
        scores = [(name, percent(value)) for name, value in self.scores.items()]
        return scores + [(name, nats(value)) for name, value in self.losses.items()]

    def summary(self) -> str:
        """The figures as lines."""
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def nats(loss: float) -> str:
    return f"{loss:.3f} nats"


def score_table(what: str, scores: Mapping[str, float]) -> Table:
    return Table((what, "share"), [(name, percent(value)) for name, value in scores.items()])


def loss_section(workdir: Path, model: str, label: str, note: str = "") -> Section:
    """The loss curve of the run in a folder. model: its name, also of the image's file."""
    rows = [row for row in read_metrics(workdir) if "train/loss" in row]
    steps, losses = [row["step"] for row in rows], [row["train/loss"] for row in rows]
    png = figures.loss_curve(steps, losses, label)
    title = f"Training loss of {model}"
    return Section(title, note, PngImage(f"loss-{model.lower()}", png, "Loss by step"))


def similarity_section(
    clip: PretrainedClip, images: Sequence[bytes], captions: Sequence[str], words: str, note: str
) -> Section:
    """The matrix of cosines of images and captions. words: what the captions are."""
    predictor = Predictor(clip, ["{}"], quiet=True)
    cosines = predictor.get_image_latents(images) @ predictor.get_text_latents(captions).T
    png = figures.similarity_matrix(cosines, pixels(images), captions)
    title = f"Cosine similarity of images and {words}"
    return Section(title, note, PngImage("similarity", png, "Matrix of cosines"))


def grid_section(
    title: str,
    note: str,
    file: str,
    images: Sequence[bytes],
    captions: Sequence[str],
    right: Sequence[bool],
) -> Section:
    """Images under what a model calls them, green where it is right, red where it is wrong."""
    png = figures.image_grid(pixels(images), captions, right)
    note = f"{note}; green is right, red is wrong."
    return Section(title, note, PngImage(file, png, "Grid of images with captions"))


def pixels(images: Sequence[bytes]) -> list[np.ndarray]:
    return [np.asarray(open_image(image)) for image in images]


def evenly_spaced(count: int, most: int) -> list[int]:
    """Places of at most `most` of `count`, at even distances from first to last."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()
