"""Sums up a preparation: items kept, rejected and ignored, records by split, findings."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from clip_jax.atomic_file import replacing
from clip_jax.text import parse_json, read_json
from experiments.data.inspection import ACROSS, EXACT, NEAR, count_findings
from experiments.data.parts import Part
from experiments.data.sources.shards import ChunkResult, json_line, summarize

REJECTED, COUNTS_FILE, INSPECTION = "rejected.jsonl", "summary.json", "inspection.jsonl"


@dataclasses.dataclass(frozen=True)
class Counts:
    """Counts of a source's items; unit: their noun, "rows", "members", ...

    ignored: by rule.
    """

    unit: str
    kept: int
    rejected: int
    ignored: dict[str, int]

    @property
    def all(self) -> int:
        return self.kept + self.rejected + sum(self.ignored.values())

    def __str__(self) -> str:
        ignored = sum(self.ignored.values())
        rules = ", ".join(f"{count} {rule}" for rule, count in self.ignored.items())
        return (
            f"read {self.all} {self.unit}: {self.kept} kept, {self.rejected} rejected, "
            f"{ignored} ignored{f' ({rules})' if rules else ''}"
        )


@dataclasses.dataclass(frozen=True)
class Summary:
    """The result of a preparation.

    splits: records by split. reasons: how often records were rejected, and why. counts: None for a
    set that a version before 2 of the format made. findings: records by kind of finding, None for
    a set that was not inspected. in_both_splits: groups of duplicates that lie in both splits.
    """

    folder: Path
    splits: dict[str, int]
    reasons: dict[str, int]
    counts: Counts | None
    findings: dict[str, int] | None = None
    in_both_splits: int = 0

    @property
    def rejected_share(self) -> float:
        """Returns the share of items that are not ignored; without counts, of records."""
        if self.counts is not None:
            return self.counts.rejected / max(self.counts.kept + self.counts.rejected, 1)
        rejected = sum(self.reasons.values())
        return rejected / max(rejected + sum(self.splits.values()), 1)


@dataclasses.dataclass(frozen=True)
class PartSummary:
    """The result of one part: its chunks, and how many of them were there already."""

    folder: Path
    part: Part
    chunks: int
    there: int


class Totals:
    """The sum of the results of all chunks."""

    def __init__(self) -> None:
        self.shards: list[list[Any]] = []
        self.reasons: Counter[str] = Counter()
        self.records = 0
        self._kept = self._rejected = 0
        self._ignored: Counter[str] = Counter()

    def add_all(self, results: Iterable[ChunkResult]) -> Iterator[dict[str, Any]]:
        """Adds results, and yields the lines of what they reject: of one chunk in memory."""
        for result in results:
            self.shards += result.shards
            self.reasons += summarize(result.rejected)
            self.records += result.records
            self._kept += result.kept_items
            self._rejected += result.rejected_items
            self._ignored.update(result.ignored_items)
            yield from result.rejected

    def counts(self, unit: str) -> Counts:
        ignored = sorted(self._ignored.items(), key=lambda rule: (-rule[1], rule[0]))
        return Counts(unit, self._kept, self._rejected, dict(ignored))


def read_summary(out: Path) -> Summary:
    """Reads the summary of a finished set."""
    splits = tfds.builder_from_directory(str(out)).info.splits
    reasons = summarize(_read_lines(out / REJECTED))
    records = {name: split.num_examples for name, split in splits.items()}
    file = out / COUNTS_FILE
    counts = Counts(**read_json(file)) if file.exists() else None
    findings, in_both = None, 0
    if (out / INSPECTION).exists():
        lines = list(_read_lines(out / INSPECTION))
        findings = count_findings(lines)
        in_both = sum(line["finding"] in (EXACT, NEAR) and ACROSS in line for line in lines)
    return Summary(out, records, dict(reasons.most_common()), counts, findings, in_both)


def write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines, all or none."""
    with replacing(file) as beside, beside.open("w", encoding="utf-8") as opened:
        opened.writelines(map(json_line, lines))


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
    # Bytes: as text a line would end elsewhere too, such as at U+2028.
    with file.open("rb") as opened:
        for line in opened:
            yield parse_json(line.decode("utf-8"), file.name)
