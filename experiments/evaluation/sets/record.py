"""What is known of a data set before it is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

METRICS = ("accuracy", "mean_per_class", "roc_auc")
FOLDER, EMBEDDED = "folder", "embedded"
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class SetRecord:
    """A labelled data set: where it comes from, what is measured on it, how large it must be.

    name: how commands call it. title: how the report does. source: a TFDS "name:version" or
    "name/config:version", "folder", or "embedded".
    splits: the source's name of each of ours, where they differ; ours are train, validation and
    test. metric: one of METRICS. classes, examples: how many there must be, the latter by split;
    None and {} expect nothing. exact: False where copies of the set differ in size, so that
    `examples` only tells what CLIP's authors had.
    fetch: what to get, for a person; `{place}` is where to put it as TFDS, `{folder}` as a folder.
    note: what else one must know.
    label: the feature that holds the label. count_from: that feature is a list, and the label is
    its length less this number. class_names: for sources that have numbers only.
    """

    name: str
    title: str
    source: str
    metric: str
    classes: int | None
    examples: Mapping[str, int]
    fetch: str
    splits: Mapping[str, str] = dataclasses.field(default_factory=dict)
    exact: bool = True
    note: str = ""
    label: str = "label"
    count_from: int | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric!r}; expected one of {', '.join(METRICS)}")

    @property
    def is_tfds(self) -> bool:
        return self.source not in (FOLDER, EMBEDDED)

    def source_split(self, split: str) -> str:
        """The source's name of one of our splits."""
        return self.splits.get(split, split)


def own_record(name: str) -> SetRecord:
    """Of a user's own set, of which nothing is expected."""
    return SetRecord(
        name=name, title=name, source=FOLDER, metric="accuracy", classes=None, examples={}, fetch=""
    )
