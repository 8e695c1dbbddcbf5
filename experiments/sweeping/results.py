"""Results of a sweep: one file a run, one table over all."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from experiments.config.run import TrainConfig, flatten
from experiments.sweeping.variants import Variant, describe

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
    saved.setdefault("data.log_ids", False)  # which earlier versions did not write
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

    def to_dict(self, metrics: Sequence[str]) -> dict[str, Any]:
        good = self.good()
        errors = {seed: result.error for seed, result in self.results.items() if result.error}
        return {
            "name": self.variant.name,
            "overrides": dict(self.variant.overrides),
            "seeds": list(self.results),
            "metrics": {
                metric: {**summary(self.values(metric)), "values": self.values(metric)}
                for metric in metrics
            },
            "steps_per_second": summary([r.steps_per_second for r in good])["mean"],
            "wall_seconds": summary([r.wall_seconds for r in good])["mean"],
            "errors": errors,
        }


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


def table(rows: Sequence[Row], metrics: Sequence[str], seeds: int) -> str:
    """Markdown."""
    named = any(row.variant.name != describe(row.variant.overrides) for row in rows)
    titles = ["variant", *(["overrides"] if named else []), *metrics, "steps/s", "wall, s"]
    lines = [_line(titles), "|---" * len(titles) + "|"]
    failed = []
    for row in rows:
        data = row.to_dict(metrics)
        cells = [row.variant.name]
        if named:
            listed = describe(row.variant.overrides).replace("|", "\\|")
            cells.append(f"`{listed}`" if listed else "")
        for metric in metrics:
            cells.append(mean_and_spread(**summary(row.values(metric))))
        for key in ("steps_per_second", "wall_seconds"):
            cells.append("" if data[key] is None else f"{data[key]:.1f}")
        lines.append(_line(cells))
        failed += [f"- {row.variant.name}, seed {s}: {why}" for s, why in data["errors"].items()]
    done = sum(len(row.results) for row in rows)
    notes = [f"Mean ± standard deviation over {seeds} seeds; {done} of {len(rows) * seeds} runs."]
    if failed:
        notes += ["", f"Diverged and left out ({len(failed)}):", "", *failed]
    return "\n".join([*lines, "", *notes]) + "\n"


def mean_and_spread(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return ""
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
