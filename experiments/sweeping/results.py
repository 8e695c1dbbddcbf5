"""Results of a sweep: one file a run, one table over all."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from experiments.config.run import TrainConfig, flatten
from experiments.sweeping.variants import Variant

FILE_NAME = "result.json"


@dataclasses.dataclass(frozen=True)
class Result:
    """A run that is over.

    metrics: the last value of each. error: one line where the run diverged, else "".
    steps_per_second: None where too few steps were logged. wall_seconds: from the start to the
    model folder, compilation and evaluation included; None for a run that was interrupted between.
    """

    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    steps_per_second: float | None
    wall_seconds: float | None
    error: str = ""

    def save(self, folder: Path) -> None:
        replace_file(folder / FILE_NAME, json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def read_result(folder: Path, config: TrainConfig) -> Result | None:
    """Reads the result of a run, None if it is not over; InputError where its config differs."""
    file = folder / FILE_NAME
    if not file.exists():
        return None
    result = Result(**json.loads(file.read_text(encoding="utf-8")))
    # Through JSON, as the saved one went: tuples become lists.
    wanted, saved = flatten(json.loads(json.dumps(config.to_dict()))), flatten(result.config)
    # Which earlier versions did not write, and which change no result.
    saved.setdefault("data.log_ids", False)
    saved["evaluation_images"] = wanted["evaluation_images"]
    for key in sorted(wanted.keys() | saved.keys()):
        if wanted.get(key) != saved.get(key):
            raise InputError(
                f"{folder}: holds a finished run with config.{key} = {saved.get(key)!r}, not "
                f"{wanted.get(key)!r}; name another --workdir, or the same config to go on"
            )
    return result


@dataclasses.dataclass(frozen=True)
class Row:
    """A variant with the results of those of its seeds that are over, by seed."""

    variant: Variant
    results: Mapping[int, Result]

    def good(self) -> list[Result]:
        return [result for result in self.results.values() if not result.error]

    def values(self, metric: str) -> list[float]:
        """Returns the values of the runs that did not diverge; InputError for an unknown metric."""
        for result in self.good():
            if metric not in result.metrics:
                raise InputError(
                    f"--metric is {metric!r}; expected one of {', '.join(result.metrics)}"
                )
        return [result.metrics[metric] for result in self.good()]

    def by_seed(self, metric: str) -> dict[int, float]:
        """Returns seed -> value, of the runs that did not diverge."""
        good = [seed for seed, result in self.results.items() if not result.error]
        return dict(zip(good, self.values(metric), strict=True))

    def to_dict(self, metrics: Sequence[str], base: Row) -> dict[str, Any]:
        """Returns plain data; base: the row that this one is compared with, seed by seed."""
        good = self.good()
        errors = {seed: result.error for seed, result in self.results.items() if result.error}
        return {
            "name": self.variant.name,
            "overrides": dict(self.variant.overrides),
            "seeds": list(self.results),
            "metrics": {
                metric: {
                    **summary(self.values(metric)),
                    "values": self.values(metric),
                    "difference": None if self is base else paired_difference(self, base, metric),
                }
                for metric in metrics
            },
            "steps_per_second": summary([r.steps_per_second for r in good])["mean"],
            "wall_seconds": summary([r.wall_seconds for r in good])["mean"],
            "errors": errors,
        }


def base_of(rows: Sequence[Row], name: str = "") -> Row:
    """Returns the row that others are compared with: the one named, else "base", else the first."""
    named = {row.variant.name: row for row in rows}
    return named[name] if name else named.get("base", rows[0])


def paired_difference(row: Row, base: Row, metric: str) -> dict[str, float | None]:
    """Returns the mean of row - base over common seeds, with its interval of 95 %.

    The interval is Student's t with n - 1 degrees of freedom; None with fewer than two seeds. Equal
    seeds have the same initial parameters, batches and augmentation, so their noise cancels.
    """
    ours, theirs = row.by_seed(metric), base.by_seed(metric)
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    found = summary(differences)
    if found["mean"] is None or found["deviation"] is None:
        return {"mean": found["mean"], "low": None, "high": None}
    n = len(differences)
    reach = float(stats.t.ppf(0.975, n - 1)) * found["deviation"] / n**0.5
    return {"mean": found["mean"], "low": found["mean"] - reach, "high": found["mean"] + reach}


def summary(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation of what is known; None where there is too little."""
    known = [value for value in values if value is not None]
    return {
        "mean": statistics.fmean(known) if known else None,
        "deviation": statistics.stdev(known) if len(known) > 1 else None,
    }


def default_metrics(rows: Sequence[Row]) -> list[str]:
    """Returns the metrics of the evaluators, or the training loss where there is none."""
    written = [metric for row in rows for result in row.good() for metric in result.metrics]
    measured = [metric for metric in dict.fromkeys(written) if not metric.startswith("train/")]
    return measured or ["train/loss"]
