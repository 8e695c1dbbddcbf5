"""Prepares a set from a source, in chunks, so that it can be stopped and resumed.

    prepare.json             what is to be made, of which files
    unfinished/              shards and results of chunks; gone at the end
    rejected.jsonl           every record, or caption or answer of one, that was left out
    summary.json             how many rows, members or entries were kept, rejected and ignored
    dataset_info.json        last, so that an unfinished folder never opens as a data set
    inspection.jsonl         transparent and nearly uniform images, duplicates, repeated captions
    preview.html             random records, to be looked at
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from clip_jax.atomic_file import replace_file, replacing
from clip_jax.errors import InputError
from clip_jax.paths import as_path, remove_tree
from clip_jax.progress import elapsed_lines
from clip_jax.text import check_encodable, escape, parse_json, read_json
from experiments.config.data import BACKGROUNDS
from experiments.data.image_index import INDEX
from experiments.data.inspection import ACROSS, EXACT, NEAR, count_findings, find
from experiments.data.parts import Part, check_whole
from experiments.data.preparation_request import REQUEST, claim
from experiments.data.preview import write_preview
from experiments.data.ray_engine import RayEngine, parse_engine
from experiments.data.sources import KINDS, make_plan
from experiments.data.sources.chunks import (
    missing_chunks,
    read_results,
    run_processes,
    show_progress,
)
from experiments.data.sources.read_plan import ReadPlan, SourceConfig
from experiments.data.sources.schema import BACKGROUND, CODES, COLUMNS, SCHEMAS
from experiments.data.sources.shards import (
    ChunkResult,
    WriteConfig,
    coded_name,
    json_line,
    notes_name,
    summarize,
)
from experiments.data.sources.tfds_metadata import INFO, UNFINISHED, write_tfds_metadata
from experiments.workdir.lock import RunLock

REJECTED, COUNTS_FILE = "rejected.jsonl", "summary.json"
INSPECTION, PREVIEW = "inspection.jsonl", "preview.html"
DEFAULT_WRITE_CONFIG = WriteConfig()


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


def prepare(
    config: SourceConfig,
    out: str | Path,
    write_config: WriteConfig = DEFAULT_WRITE_CONFIG,
    *,
    workers: int = 1,
    vqgan: str = "",
    image_size: int = 0,
    finish: bool = False,
    engine: str = "",
) -> Summary:
    """Prepares a source, or resumes where the same call was stopped; writes nothing twice.

    workers: processes; the files are the same whatever their number. vqgan: folder of an image
    tokenizer whose codes of the images, at `image_size` pixels, are stored too. finish: writes no
    chunks, but what comes after those of all calls of `prepare_part`. engine: "ray" or
    "ray:ADDRESS": chunks are tasks of a Ray cluster instead of processes.
    Raises InputError for a source without one good record, for a folder that holds anything else
    or that another preparation writes into, and with `finish` where chunks are missing.
    """
    job = _Job.plan(config, out, write_config, workers, vqgan, image_size, engine)
    if finish and not (job.out / REQUEST).exists():
        raise InputError(f"{job.out}: no preparation was begun here; run its parts, --part=K/N")
    with RunLock(_folder(job.out)) as lock:
        job.claim()
        if not job.is_finished:
            job.unfinished.mkdir(exist_ok=True)
            if finish:
                job.check_whole()
            else:
                job.write_chunks(range(len(job.chunks)))
            with elapsed_lines(f"finishing {job.out}"):
                _finish(job, lock)
        remove_tree(job.unfinished)
        return _summarize(job)


def prepare_part(
    config: SourceConfig,
    out: str | Path,
    part: Part,
    write_config: WriteConfig = DEFAULT_WRITE_CONFIG,
    *,
    workers: int = 1,
    vqgan: str = "",
    image_size: int = 0,
) -> PartSummary:
    """Writes the chunks of one part, those that are missing; `prepare(finish=True)` does the rest.

    Raises InputError as `prepare` does, and where another process writes the same part.
    """
    job = _Job.plan(config, out, write_config, workers, vqgan, image_size)
    _folder(job.out).mkdir(parents=True, exist_ok=True)
    job.claim()
    mine = part.chunks(len(job.chunks))
    if job.is_finished:
        return PartSummary(job.out, part, len(mine), len(mine))
    job.unfinished.mkdir(exist_ok=True)
    part.record(job.unfinished)
    with RunLock(job.unfinished / f"part-{part.number}-of-{part.count}"):
        left = job.write_chunks(mine)
    return PartSummary(job.out, part, len(mine), len(mine) - left)


def _folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: already exists; remove it or name another folder")
    return out


@dataclasses.dataclass(frozen=True)
class _Job:
    """Says what is made of a source, and by how many processes or threads of this machine."""

    source: ReadPlan
    out: Path
    write_config: WriteConfig
    coder: Any
    workers: int
    vqgan: str
    engine: Any

    @classmethod
    def plan(
        cls,
        config: SourceConfig,
        out: str | Path,
        write_config: WriteConfig,
        workers: int,
        vqgan: str,
        image_size: int,
        engine: str = "",
    ) -> _Job:
        address = parse_engine(engine)
        _check(write_config, config, workers, vqgan)
        out = as_path(out)
        check_encodable(str(out), "OUT")  # what writes records takes names as UTF-8
        config = dataclasses.replace(config, chunk_records=write_config.shard_records)
        cluster = None if address is None else RayEngine(address, workers)
        with elapsed_lines(f"listing {escape(config.source)}"):
            plan = make_plan(config)
        if write_config.index_only and plan.config.kind != "tar":
            raise InputError(
                f"{escape(config.source)}: --index-only is of tars, and these are records of kind "
                f"{plan.config.kind!r}; leave it out"
            )
        coder = None
        if vqgan:
            from experiments.data.code_writer import CodeWriter  # JAX is for these alone

            coder = CodeWriter(vqgan, image_size, config.schema, write_config.background)
        return cls(plan, out, write_config, coder, workers, vqgan, cluster)

    @property
    def chunks(self) -> Sequence[Any]:
        return self.source.chunks

    @property
    def unfinished(self) -> Path:
        return self.out / UNFINISHED

    @property
    def is_finished(self) -> bool:
        return (self.out / INFO).exists()

    @property
    def codes(self) -> dict[str, Any] | None:
        return dataclasses.asdict(self.coder.metadata) if self.coder else None

    def claim(self) -> None:
        claim(self.out, self.source, self.write_config, self.codes)

    def write_chunks(self, numbers: Sequence[int]) -> int:
        """Writes those of the chunks that are missing, with their codes; returns how many."""
        missing = set(missing_chunks(self.source, self.unfinished))
        left = [number for number in numbers if number in missing]
        with self.engine or contextlib.nullcontext():
            if self.engine:
                written = self.engine.write(self.source, left, self.write_config, self.unfinished)
            else:
                written = run_processes(
                    self.source, left, self.write_config, self.unfinished, self.workers
                )
            show_progress(written, len(numbers), len(left))
            if self.coder is not None:
                self._add_codes(numbers)
        return len(left)

    def _add_codes(self, numbers: Sequence[int]) -> None:
        there = {file.name for file in self.unfinished.iterdir()}
        results = read_results(self.unfinished, numbers)
        plain = [
            self.unfinished / name
            for result in results
            for _, name, _ in result.shards
            if name in there
        ]
        if self.engine:
            coded = self.engine.encode(
                plain, self.vqgan, self.coder.metadata.image_size, self.source.config.form,
                self.write_config.background,
            )  # fmt: skip
        else:
            coded = (self.coder.replace(shard, self.workers) for shard in plain)
        for _ in tqdm(coded, "encoding images", len(plain), unit="shard", disable=None):
            pass

    def check_whole(self) -> None:
        """Raises InputError that names the parts whose chunks, or their codes, are missing."""
        count = len(self.chunks)
        missing = missing_chunks(self.source, self.unfinished)
        if self.coder is not None and not missing:
            there = {file.name for file in self.unfinished.iterdir()}
            missing = [
                i
                for i, result in enumerate(read_results(self.unfinished, range(count)))
                if any(name in there for _, name, _ in result.shards)  # not yet replaced
            ]
        check_whole(self.out, self.unfinished, missing, count)


def _finish(job: _Job, lock: RunLock) -> None:
    """Writes all that describes the set, when its chunks are there."""
    out, plan, write_config = job.out, job.source, job.write_config
    totals = _Totals()
    results = read_results(job.unfinished, range(len(plan.chunks)))
    _write_lines(out / REJECTED, totals.add_all(results))
    counts = totals.counts(KINDS[plan.config.kind].UNIT)
    replace_file(out / COUNTS_FILE, json_line(dataclasses.asdict(counts)))
    if not totals.shards:
        raise _nothing_left(plan, out, totals, counts)
    if job.coder is not None:
        totals.shards = [[split, coded_name(name), n] for split, name, n in totals.shards]
    if write_config.inspect and plan.config.schema.has_image:
        files = [job.unfinished / notes_name(number) for number in range(len(plan.chunks))]
        _write_lines(out / INSPECTION, (found.line for found in find(files)))
    lock.check()
    metadata = {CODES: job.codes} if job.codes else {}
    if write_config.background:
        metadata[BACKGROUND] = write_config.background
    if write_config.index_only:
        source = plan.config.path.resolve()
        metadata[INDEX] = {"folder": str(source if source.is_dir() else source.parent)}
    write_tfds_metadata(out, plan.config.schema, totals.shards, metadata)


class _Totals:
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


def _summarize(job: _Job) -> Summary:
    """Returns what is in the folder of a finished set, and writes the preview if it lacks one."""
    out = job.out
    summary = _summary(out)
    if not (out / PREVIEW).exists():
        background = job.write_config.background
        write_preview(
            out, out / PREVIEW, summary.splits, summary.findings or {},
            BACKGROUNDS[background or "none"], stated=bool(background),
        )  # fmt: skip
    return summary


def _write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with replacing(file) as beside, beside.open("w", encoding="utf-8") as opened:
        opened.writelines(map(json_line, lines))


def _read_lines(file: Path) -> Iterator[dict[str, Any]]:
    # Bytes: as text a line would end elsewhere too, such as at U+2028.
    with file.open("rb") as opened:
        for line in opened:
            yield parse_json(line.decode("utf-8"), file.name)


def _check(write_config: WriteConfig, config: SourceConfig, workers: int, vqgan: str) -> None:
    if config.form not in SCHEMAS:
        raise InputError(f"--form is {config.form!r}; expected one of {', '.join(SCHEMAS)}")
    for name, column in COLUMNS.items():
        if getattr(config, column.field) and name not in config.schema.columns:
            wish = ", ".join(form for form, schema in SCHEMAS.items() if name in schema.columns)
            raise InputError(
                f"{column.option} is given, and --form={config.form} has no such column; "
                f"expected --form to be one of {wish}"
            )
    if vqgan and not config.schema.has_image:
        raise InputError(f"--vqgan is given, and --form={config.form} has no images to encode")
    if write_config.index_only:
        for option, given in (("--vqgan", vqgan), ("--max-side", write_config.max_side)):
            if given:
                raise InputError(
                    f"--index-only and {option} exclude each other: images stay as they are in the "
                    "tars; leave one out"
                )
        if not config.schema.has_image:
            raise InputError(f"--index-only is given, and --form={config.form} has no images")
    split, side = write_config.split, write_config.max_side
    for name, good, wish in (
        # TFDS takes "all" for all splits together.
        ("split", split != "all" and re.fullmatch(r"[a-zA-Z]\w*", split, re.ASCII),
         "a letter, and letters, digits and _, but not 'all'"),
        ("validation", 0 <= write_config.validation < 1, "a share, 0 to below 1"),
        ("max_side", side is None or side > 0, "a positive number of pixels"),
        ("background", write_config.background in ("", *BACKGROUNDS),
         f"one of {', '.join(BACKGROUNDS)}"),
        ("shard_records", write_config.shard_records > 0, "a positive number"),
        ("shard_bytes", write_config.shard_bytes > 0, "a positive number"),
    ):
        if not good:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(write_config, name)!r}; expected {wish}"
            )
    if write_config.validation and split == "validation":
        raise InputError("--split is 'validation', as is the split of --validation; rename one")
    if workers < 1:
        raise InputError(f"--workers is {workers}; expected at least 1")
    if config.data_dir and not as_path(config.data_dir).is_dir():
        raise InputError(f"--data-dir is {config.data_dir!r}; no such folder")


def _nothing_left(plan: ReadPlan, out: Path, totals: _Totals, counts: Counts) -> InputError:
    source = escape(plan.config.source)
    if not totals.reasons:
        return InputError(f"{source}: holds no records; {counts}")
    (why, _), *_ = totals.reasons.most_common(1)
    return InputError(
        f"{source}: none of its {totals.records} records can be used, most often because {why}; "
        f"{out / REJECTED} lists them"
    )


def _summary(out: Path) -> Summary:
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
