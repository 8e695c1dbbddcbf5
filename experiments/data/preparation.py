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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.paths import as_path, remove_tree
from clip_jax.progress import elapsed_lines
from clip_jax.text import check_encodable, escape
from experiments.config.data import BACKGROUNDS
from experiments.data.image_index import INDEX
from experiments.data.inspection import find
from experiments.data.parts import Part, check_whole
from experiments.data.preparation_options import check_kind, check_options
from experiments.data.preparation_request import REQUEST, claim
from experiments.data.preparation_summary import (
    COUNTS_FILE,
    INSPECTION,
    REJECTED,
    Counts,
    PartSummary,
    Summary,
    Totals,
    read_summary,
    write_lines,
)
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
from experiments.data.sources.schema import BACKGROUND, CODES
from experiments.data.sources.shards import (
    WriteConfig,
    coded_name,
    json_line,
    notes_name,
)
from experiments.data.sources.tfds_metadata import INFO, UNFINISHED, write_tfds_metadata
from experiments.workdir.lock import RunLock

PREVIEW = "preview.html"
DEFAULT_WRITE_CONFIG = WriteConfig()


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
        check_options(write_config, config, workers, vqgan)
        out = as_path(out)
        check_encodable(str(out), "OUT")  # what writes records takes names as UTF-8
        config = dataclasses.replace(config, chunk_records=write_config.shard_records)
        cluster = None if address is None else RayEngine(address, workers)
        with elapsed_lines(f"listing {escape(config.source)}"):
            plan = make_plan(config)
        check_kind(write_config, plan.config)
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
    totals = Totals()
    results = read_results(job.unfinished, range(len(plan.chunks)))
    write_lines(out / REJECTED, totals.add_all(results))
    counts = totals.counts(KINDS[plan.config.kind].UNIT)
    replace_file(out / COUNTS_FILE, json_line(dataclasses.asdict(counts)))
    if not totals.shards:
        raise _nothing_left(plan, out, totals, counts)
    if job.coder is not None:
        totals.shards = [[split, coded_name(name), n] for split, name, n in totals.shards]
    if write_config.inspect and plan.config.schema.has_image:
        files = [job.unfinished / notes_name(number) for number in range(len(plan.chunks))]
        write_lines(out / INSPECTION, (found.line for found in find(files)))
    lock.check()
    metadata = {CODES: job.codes} if job.codes else {}
    if write_config.background:
        metadata[BACKGROUND] = write_config.background
    if write_config.index_only:
        source = plan.config.path.resolve()
        metadata[INDEX] = {"folder": str(source if source.is_dir() else source.parent)}
    write_tfds_metadata(out, plan.config.schema, totals.shards, metadata)


def _summarize(job: _Job) -> Summary:
    """Returns what is in the folder of a finished set, and writes the preview if it lacks one."""
    out = job.out
    summary = read_summary(out)
    if not (out / PREVIEW).exists():
        background = job.write_config.background
        write_preview(
            out, out / PREVIEW, summary.splits, summary.findings or {},
            BACKGROUNDS[background or "none"], stated=bool(background),
        )  # fmt: skip
    return summary


def _nothing_left(plan: ReadPlan, out: Path, totals: Totals, counts: Counts) -> InputError:
    source = escape(plan.config.source)
    if not totals.reasons:
        return InputError(f"{source}: holds no records; {counts}")
    (why, _), *_ = totals.reasons.most_common(1)
    return InputError(
        f"{source}: none of its {totals.records} records can be used, most often because {why}; "
        f"{out / REJECTED} lists them"
    )


