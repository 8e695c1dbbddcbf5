"""Assembles the page of `evaluate report` from results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType

from experiments.evaluation.report import charts
from experiments.evaluation.report import tables as tables
from experiments.evaluation.report.page import Section, Table
from experiments.evaluation.report.system_results import SystemResults


def sections(
    systems: Sequence[SystemResults], names: Sequence[str], figures: ModuleType
) -> list[Section]:
    """figures: `experiments.evaluation.report.figures`. names: of the sets, in the page's order."""
    zero_shots = [one.zero_shots() for one in systems]
    probes = [one.probe_of_most() for one in systems]
    found = [
        tables.numbers("Zero-shot", systems, names, "zero-shot", zero_shots),
        *charts.bars(systems, names, figures),
        tables.numbers("Linear probe", systems, names, "linear-probe", probes),
        *charts.curves(systems, names, figures),
        *charts.correlation(systems, figures),
        *tables.calibration(systems, names),
        *tables.retrieval(systems),
        *charts.matrices(systems),
        *tables.all_remarks(systems),
        *tables.missing(systems),
        tables.all_published(names),
        tables.traces(systems),
    ]
    return [section for section in found if section is not None]


def markdown(page: Sequence[Section]) -> str:
    """The page's tables, for a README or an issue."""
    parts = []
    for section in page:
        if isinstance(section.content, Table):
            rows = [section.content.header, *section.content.rows]
            lines = ["| " + " | ".join(_escaped(cell) for cell in row) + " |" for row in rows]
            lines.insert(1, "|" + "---|" * len(section.content.header))
            note = [section.note, ""] if section.note else []
            parts.append("\n".join([f"## {section.title}", "", *note, *lines, ""]))
    return "\n".join(parts)


def _escaped(cell: str) -> str:
    return re.sub(r"([|<])", r"\\\1", cell)
