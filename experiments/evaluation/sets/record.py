"""The record of an evaluation set: what is known of it before it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from experiments.data.sources.labels import LabelSource

METRICS = ("accuracy", "mean_per_class", "roc_auc")
FOLDER, BUILTIN = "folder", "built-in"
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetRecord(LabelSource):
    """A labelled data set: where it comes from, what is measured on it, how large it must be.

    name: how commands call it. title: how the report does. source: a TFDS "name:version" or
    "name/config:version", "folder", or "built-in".
    metric: one of METRICS. classes, examples: how many there must be, the latter by split; None
    and {} expect nothing. fixed_size: False where copies of the set differ in size, so that
    `examples` only tells what CLIP's authors had.
    download_hint: what to get, for a person; `{place}` is where to put it as TFDS, `{folder}` as a
    folder. note: what else one must know.
    """

    name: str
    title: str
    source: str
    metric: str
    classes: int | None
    examples: Mapping[str, int]
    download_hint: str = ""
    fixed_size: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric!r}; expected one of {', '.join(METRICS)}")

    @property
    def is_tfds(self) -> bool:
        return self.source not in (FOLDER, BUILTIN)


def own_record(name: str) -> SetRecord:
    """Returns the record of a user's own set, of which nothing is expected."""
    return SetRecord(
        name=name, title=name, source=FOLDER, metric="accuracy", classes=None, examples={}
    )
