"""Makes the sections of a report that are figures: bars, few-shot curves, correlation, cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from experiments.evaluation.report.page import PngImage, Section
from experiments.evaluation.report.system_results import SystemResults
from experiments.evaluation.run import set_title


def bars(
    systems: Sequence[SystemResults], names: Sequence[str], figures: ModuleType
) -> list[Section]:
    there = [name for name in names if any(name in one.zero_shot for one in systems)]
    if not there:
        return []

    def row(values: Mapping[str, float]) -> list[float]:
        return [values.get(name, float("nan")) for name in there]

    png = figures.grouped_bars(
        [set_title(name) for name in there],
        {one.name: row(one.zero_shots()) for one in systems},
        {one.name: row(one.published["zero-shot"]) for one in systems},
        "zero-shot, by the set's metric",
    )
    note = "Black lines are published numbers."
    return [Section("Zero-shot, drawn", note, PngImage("zero-shot", png, "Bars by set"))]


def curves(
    systems: Sequence[SystemResults], names: Sequence[str], figures: ModuleType
) -> list[Section]:
    there = [name for name in names if any(name in one.probes for one in systems)]
    if not there:
        return []
    panels, stars = {}, {}
    # A set is the same for all systems.
    labels = {
        name: [shot_label([row]) for row in next(
            one.probes[name] for one in systems if name in one.probes
        )["shots"]]
        for name in there
    }  # fmt: skip
    for name in there:
        title = set_title(name)
        panels[title] = {
            one.name: [
                (label, row["mean"], row["deviation"])
                for label, row in zip(labels[name], one.probes[name]["shots"], strict=True)
            ]
            for one in systems
            if name in one.probes
        }
        stars[title] = {
            one.name: one.zero_shot[name]["value"] for one in systems if name in one.zero_shot
        }
    if len(there) > 1:
        everywhere = [one for one in systems if all(name in one.probes for name in there)]
        mean = f"mean of {len(there)} sets"
        averages = {one.name: _mean_curve(one, there) for one in everywhere}
        means = {
            one.name: float(np.mean([one.zero_shot[name]["value"] for name in there]))
            for one in everywhere
            if all(name in one.zero_shot for name in there)
        }
        if averages:
            panels, stars = {mean: averages, **panels}, {mean: means, **stars}
    png = figures.few_shot_curves(panels, stars)
    note = (
        "Mean over the draws, with one standard deviation; a star is zero-shot. The lists of the "
        "images drawn are in the JSON files. A range below a number is what was found: the "
        "classes with the fewest and the most of these images."
    )
    return [Section("Few-shot probes", note, PngImage("few-shot", png, "Curves by set"))]


def shot_label(rows: Sequence[Mapping[str, Any]]) -> str:
    """Label a tick: "16", or "16" above "4–16" where some class of some set has fewer."""
    shots = str(rows[0]["shots"])
    if not any(row["found"]["classes_with_fewer"] for row in rows):
        return shots
    fewest = min(row["found"]["fewest"] for row in rows)
    most = max(row["found"]["most"] for row in rows)
    return f"{shots}\n{fewest}–{most}" if fewest < most else f"{shots}\n{most}"


def _mean_curve(one: SystemResults, names: Sequence[str]) -> list[tuple[str, float, float]]:
    """Average sets with the same numbers of images; draws of different sets are independent."""
    rows = zip(*(one.probes[name]["shots"] for name in names), strict=True)
    return [
        (
            shot_label(row),
            float(np.mean([cell["mean"] for cell in row])),
            float(np.sqrt(np.square([cell["deviation"] for cell in row]).sum()) / len(row)),
        )
        for row in rows
    ]


def correlation(systems: Sequence[SystemResults], figures: ModuleType) -> list[Section]:
    points = {}
    for one in systems:
        zero, probe = one.zero_shots(), one.probe_of_most()
        shared = [name for name in zero if name in probe]
        if shared:
            points[one.name] = [(zero[name], probe[name], set_title(name)) for name in shared]
    flat = np.array([(x, y) for found in points.values() for x, y, _ in found])
    if not len(flat):
        return []
    note = "Each point is a set; on the line both are equal."
    if len(flat) > 2 and flat.std(axis=0).all():
        note += f" Pearson's correlation of {len(flat)} points: {np.corrcoef(flat.T)[0, 1]:.3f}."
    png = figures.correlation(points)
    image = PngImage("correlation", png, "Zero-shot against linear probe")
    return [Section("Zero-shot against linear probe", note, image)]


def matrices(systems: Sequence[SystemResults]) -> list[Section]:
    note = "Images of scikit-image's wheel; the brightest of a row is the model's choice."
    return [
        Section(
            f"Cosine similarity, {one.name}",
            note,
            PngImage(f"similarity-{number}", one.matrix, "Matrix of cosines"),
        )
        for number, one in enumerate(systems)
        if one.matrix is not None
    ]
