"""The report's data sets, built-in ones, and users' own: images with labels or captions."""

from experiments.evaluation.sets.captioned_set import CaptionedSet, open_captioned
from experiments.evaluation.sets.labelled_set import LabelledSet
from experiments.evaluation.sets.loader import DATA_DIR, MissingSet, open_set
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.table import RECORDS

__all__ = [
    "DATA_DIR", "RECORDS", "CaptionedSet", "LabelledSet", "MissingSet", "SetRecord",
    "open_captioned", "open_set",
]  # fmt: skip
