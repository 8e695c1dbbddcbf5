"""The data sets of the ruCLIP report, embedded ones, and users' own: labels and pictures."""

from experiments.evaluation.sets.labelled import LabelledSet
from experiments.evaluation.sets.missing import MissingSet
from experiments.evaluation.sets.opening import DATA_DIR, open_set
from experiments.evaluation.sets.record import SetRecord
from experiments.evaluation.sets.table import RECORDS

__all__ = ["DATA_DIR", "RECORDS", "LabelledSet", "MissingSet", "SetRecord", "open_set"]
