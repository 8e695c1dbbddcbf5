"""Makes the images of an evaluation during training: drawings, and confusion matrices.

RUDOLPH draws held-out captions, always the same ones with the same seed, where it learns to draw
and a "losses" evaluator names a split. For that all parameters go to the first process's host and
one of its devices, as for the model folder at the end, and a program is compiled once: float32
parameters of 2.7 billion take 11 GB there, so the configs of 1.3 and 2.7 billion draw nothing.
Where the device has no memory left, the run continues without drawings. A confusion matrix needs
nothing but the labels that the evaluator has, and half a second of the first process.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import numpy as np

from experiments.config.run import TrainConfig
from experiments.data.source import open_split
from rudolph_jax.pretrained import PretrainedRudolph
from rudolph_jax.tasks import draw_texts

DRAWINGS = "drawings"
CANDIDATES = 4  # rows that are looked at for each caption, since several may have the same

Figure = Callable[[], bytes]  # draws a PNG file; by the first process alone


class ShownMetrics(dict[str, float]):
    """Metrics of an evaluator, with figures that show them: name -> Figure."""

    def __init__(self, metrics: Mapping[str, float], figures: Mapping[str, Figure]) -> None:
        super().__init__(metrics)
        self.figures = figures


def figures_of(metrics: Mapping[str, float]) -> Mapping[str, Figure]:
    """Returns the figures of what an evaluator measured; own evaluators may return a dict."""
    return metrics.figures if isinstance(metrics, ShownMetrics) else {}


def with_confusion(
    metrics: Mapping[str, float],
    labels: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
) -> ShownMetrics:
    """Adds the confusion matrix. labels, predicted: int[N], indices into class_names."""

    def draw() -> bytes:
        from experiments.evaluation.report.figures import confusion_matrix

        counts = np.zeros((len(class_names), len(class_names)), int)
        np.add.at(counts, (labels, predicted), 1)
        return confusion_matrix(counts, class_names)

    return ShownMetrics(metrics, {"confusion": draw})


@dataclasses.dataclass(frozen=True)
class SampleDrawings:
    """Draws captions, an image each."""

    captions: Sequence[str]

    def __call__(self, rudolph: PretrainedRudolph) -> bytes:
        """Returns the sheet of drawings as a PNG file."""
        from experiments.evaluation.report.figures import image_grid

        codes = draw_texts(rudolph, self.captions, batch_size=len(self.captions), quiet=True)
        images = [np.asarray(image) for image in rudolph.decode_images(codes)]
        return image_grid(images, self.captions, columns=min(8, len(images)))


def make_drawings(config: TrainConfig) -> SampleDrawings | None:
    """Chooses captions of a held-out split; None where the run is to draw nothing."""
    splits = [
        split for task, _, split in (name.partition(":") for name in config.evaluators)
        if task == "losses"
    ]  # fmt: skip
    draws = config.objective == "rudolph" and config.settings.text_to_image > 0
    if not config.evaluation_images or not draws or not splits:
        return None
    rows = open_split(config.data, splits[0], config.extensions.data)
    if not len(rows):
        return None
    captions = [
        rows[place]["captions"][0]
        for place in _spread(len(rows), CANDIDATES * config.evaluation_images)
    ]
    distinct = list(dict.fromkeys(captions))
    chosen = [distinct[i] for i in _spread(len(distinct), config.evaluation_images)]
    return SampleDrawings(chosen)


def _spread(count: int, most: int) -> list[int]:
    """Returns at most `most` places of `count`, at even distances."""
    return np.linspace(0, count - 1, min(most, count)).astype(int).tolist()


def missing_package(config: TrainConfig) -> str:
    """Returns what to do where images are wanted and cannot be drawn; "" elsewhere."""
    if not config.evaluation_images or not config.evaluators or find_spec("matplotlib"):
        return ""
    return (
        "no images of evaluations without the package 'matplotlib': "
        "pip install 'rudolph-jax[demo]', or --config.evaluation_images=0"
    )
