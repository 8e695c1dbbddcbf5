"""Makes the tables of a report: measured numbers beside published ones, and what they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.evaluation.remarks import is_partial, remarks
from experiments.evaluation.report.page import Section, Table
from experiments.evaluation.report.system_results import (
    TOLERANCE,
    SystemResults,
    compare,
    published,
)
from experiments.evaluation.run import set_record, set_title

# What the report's second average leaves out.
LEFT_OUT = ("patch_camelyon", "oxford_pets", "fgvc_aircraft")
NOT_THERE, NOT_REQUESTED = "not on disk", "–"


def numbers(
    title: str,
    systems: Sequence[SystemResults],
    names: Sequence[str],
    task: str,
    values: Sequence[Mapping[str, float]],
) -> Section | None:
    if not any(values):
        return None
    rows = []
    for name in names:
        cells = [
            compare(found[name], one.published[task].get(name)) + _mark(one, task, name)
            if name in found
            else NOT_THERE
            if name in one.missing
            else NOT_REQUESTED
            for one, found in zip(systems, values, strict=True)
        ]
        rows.append((set_title(name), set_record(name).metric.replace("_", " "), *cells))
    without_three = [name for name in names if name not in LEFT_OUT]
    left_out = ", ".join(set_title(name) for name in LEFT_OUT)
    averages = [(f"mean of {len(names)} sets", names)]
    if len(without_three) < len(names):
        averages.append((f"mean without {left_out}", without_three))
    for label, chosen in averages:
        cells = [
            _mean(found, one.published[task], chosen)
            for one, found in zip(systems, values, strict=True)
        ]
        rows.append((label, "", *cells))
    note = ""
    if any(one.published[task] for one in systems):
        note = (
            f"In brackets the published number and the difference, ▲ or ▼ beyond {TOLERANCE}. "
            + published()["note"]
        )
    if task == "linear-probe":
        shots = next(iter(next(found for found in systems if found.probes).probes.values()))
        most = shots["shots"][-1]["shots"]
        how = "all images" if most == "all" else f"{most} images a class, where there are"
        note = f"Fitted on {how}, {shots['features']}-projection features. {note}"
    if any(_mark(one, task, name) for one in systems for name in names):
        note = f"{note} * is of less than was asked for: see Remarks.".strip()
    return Section(title, note, Table(("set", "metric", *(one.name for one in systems)), rows))


def _mean(found: Mapping[str, float], known: Mapping[str, float], names: Sequence[str]) -> str:
    """Over sets that were measured; published ones are averaged only where all of those are."""
    there = [name for name in names if name in found]
    if not there:
        return NOT_REQUESTED
    measured = float(np.mean([found[name] for name in there]))
    expected = [known[name] for name in there if name in known]
    both = float(np.mean(expected)) if len(expected) == len(there) else None
    return compare(measured, both) + (f" of {len(there)}" if len(there) < len(names) else "")


def _mark(one: SystemResults, task: str, name: str) -> str:
    results = one.zero_shot if task == "zero-shot" else one.probes
    return " *" if name in results and is_partial(results[name]) else ""


def all_remarks(systems: Sequence[SystemResults]) -> list[Section]:
    """List what numbers leave out and what sets lack, for all results."""
    rows: dict[tuple[str, str, str, str], None] = {}
    for one in systems:
        for task, results in (
            ("zero-shot", one.zero_shot), ("linear probe", one.probes), ("retrieval", one.retrieval)
        ):
            for name, result in results.items():
                for line in remarks(result):
                    rows[(set_title(name), one.name, task, line)] = None
    if not rows:
        return []
    note = "What the numbers leave out, and what the sets lack."
    return [Section("Remarks", note, Table(("set", "system", "task", "remark"), list(rows)))]


def calibration(systems: Sequence[SystemResults], names: Sequence[str]) -> list[Section]:
    there = [name for name in names if any(name in one.zero_shot for one in systems)]
    if not there:
        return []
    rows = [
        (
            set_title(name),
            *(
                f"{one.zero_shot[name]['calibration']['expected_error']:.3f}"
                if name in one.zero_shot
                else NOT_REQUESTED
                for one in systems
            ),
        )
        for name in there
    ]
    note = "Expected calibration error of zero-shot: how far confidence is from accuracy."
    return [Section("Calibration", note, Table(("set", *(one.name for one in systems)), rows))]


def retrieval(systems: Sequence[SystemResults]) -> list[Section]:
    ways = {"image_to_text": "captions of images", "text_to_image": "images of captions"}
    rows = [
        (one.name, name, label, *(f"{value:.3f}" for value in result[way].values()))
        for one in systems
        for name, result in one.retrieval.items()
        for way, label in ways.items()
    ]
    if not rows:
        return []
    header = ("system", "split", "found", "recall@1", "recall@5", "recall@10")
    return [Section("Retrieval", "", Table(header, rows))]


def missing(systems: Sequence[SystemResults]) -> list[Section]:
    missing = {name: hint for one in systems for name, hint in one.missing.items()}
    if not missing:
        return []
    rows = [(set_title(name), hint) for name, hint in missing.items()]
    note = "The same command measures them as soon as they are there."
    return [Section("Sets that are not on disk", note, Table(("set", "what to do"), rows))]


def all_published(names: Sequence[str]) -> Section | None:
    systems = published()["systems"].values()
    rows = []
    for name in names:
        cells = []
        for system in systems:
            pair = [system[task].get(name) for task in ("zero-shot", "linear-probe")]
            cells.append(" / ".join(f"{value:.3f}" for value in pair if value is not None))
        if any(cells):
            rows.append((set_title(name), *cells))
    if not rows:
        return None
    header = ("set", *(system["title"] for system in systems))
    note = f"Zero-shot / linear probe. Source: {published()['source']}."
    return Section("Published numbers", note, Table(header, rows))


def traces(systems: Sequence[SystemResults]) -> Section:
    rows = [
        (
            one.name,
            one.metadata["preset"] or "own",
            one.metadata["language"],
            one.metadata["average"],
            one.metadata["dtype"],
            one.metadata["sha256"][:16],
        )
        for one in systems
    ]
    header = ("system", "sizes of", "prompts", "average", "dtype", "SHA-256 begins")
    return Section("Systems", "", Table(header, rows))
