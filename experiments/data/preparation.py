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

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tqdm import tqdm

from clip_jax.atomic_file import replace_file, replacing
from clip_jax.errors import InputError
from clip_jax.paths import as_path, remove_tree
from clip_jax.text import check_encodable, escape, parse_json, read_json, read_text
from experiments.config.data import BACKGROUNDS
from experiments.data.inspection import ACROSS, EXACT, NEAR, count_findings, find
from experiments.data.preview import write_preview
from experiments.data.sources import KINDS, make_plan
from experiments.data.sources.chunks import write_chunks
from experiments.data.sources.read_plan import ReadPlan, SourceConfig
from experiments.data.sources.schema import BACKGROUND, CODES, COLUMNS, SCHEMAS
from experiments.data.sources.shards import (
    ChunkResult,
    WriteConfig,
    json_line,
    notes_name,
    summarize,
)
from experiments.data.sources.tfds_metadata import INFO, UNFINISHED, write_tfds_metadata
from experiments.workdir.lock import FILE_NAME as LOCK
from experiments.workdir.lock import RunLock

REQUEST, REJECTED, COUNTS_FILE = "prepare.json", "rejected.jsonl", "summary.json"
INSPECTION, PREVIEW = "inspection.jsonl", "preview.html"
# Of the results of chunks. 2: they count the source's items; quotes and keys of tars have rules.
# 3: notes on images and captions lie beside them.
FORMAT = 3
DEFAULT_WRITE_CONFIG = WriteConfig()
_DEFAULTS = {**dataclasses.asdict(SourceConfig("")), **dataclasses.asdict(DEFAULT_WRITE_CONFIG)}


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


def prepare(
    config: SourceConfig,
    out: str | Path,
    write_config: WriteConfig = DEFAULT_WRITE_CONFIG,
    *,
    workers: int = 1,
    vqgan: str = "",
    image_size: int = 0,
) -> Summary:
    """Prepares a source, or resumes where the same call was stopped; writes nothing twice.

    workers: processes; the files are the same whatever their number. vqgan: folder of an image
    tokenizer whose codes of the images, at `image_size` pixels, are stored too.
    Raises InputError for a source without one good record, for a folder that holds anything else
    or that another preparation writes into.
    """
    _check(write_config, config, workers, vqgan)
    out = as_path(out)
    check_encodable(str(out), "OUT")  # what writes records takes names as UTF-8
    config = dataclasses.replace(config, chunk_records=write_config.shard_records)
    plan = make_plan(config)
    coder = None
    if vqgan:
        from experiments.data.code_writer import CodeWriter  # JAX is for these alone

        coder = CodeWriter(vqgan, image_size, config.schema, write_config.background)
    with RunLock(_folder(out)) as lock:
        return _prepare(plan, out, write_config, coder, workers, lock)


def _folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: already exists; remove it or name another folder")
    return out


def _prepare(
    plan: ReadPlan, out: Path, write_config: WriteConfig, coder: Any, workers: int, lock: RunLock
) -> Summary:
    about = dataclasses.asdict(coder.metadata) if coder else None
    _claim(out, plan, write_config, about)
    if not (out / INFO).exists():
        unfinished = out / UNFINISHED
        unfinished.mkdir(exist_ok=True)
        results = write_chunks(plan, write_config, unfinished, workers)
        rejected = [line for result in results for line in result.rejected]
        _write_lines(out / REJECTED, rejected)
        counts = _count(plan, results)
        replace_file(out / COUNTS_FILE, json_line(dataclasses.asdict(counts)))
        shards = [shard for result in results for shard in result.shards]
        if not shards:
            raise _nothing_left(plan, out, results, rejected, counts)
        if coder is not None:
            shards = _add_codes(coder, shards, unfinished, workers)
        if write_config.inspect and plan.config.schema.has_image:
            files = [unfinished / notes_name(number) for number in range(len(plan.chunks))]
            _write_lines(out / INSPECTION, (found.line for found in find(files)))
        lock.check()
        metadata = {CODES: about} if about else {}
        if write_config.background:
            metadata[BACKGROUND] = write_config.background
        write_tfds_metadata(out, plan.config.schema, shards, metadata)
    remove_tree(out / UNFINISHED)
    summary = _summary(out)
    if not (out / PREVIEW).exists():
        background = BACKGROUNDS[write_config.background or "none"]
        write_preview(
            out, out / PREVIEW, summary.splits, summary.findings or {}, background,
            stated=bool(write_config.background),
        )  # fmt: skip
    return summary


def _write_lines(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    with replacing(file) as beside, beside.open("w", encoding="utf-8") as opened:
        opened.writelines(map(json_line, lines))


def _read_lines(file: Path) -> list[dict[str, Any]]:
    # Not `splitlines`: texts may hold other ends of lines, such as U+2028.
    return [parse_json(line, file.name) for line in read_text(file).split("\n") if line]


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


def _claim(
    out: Path, plan: ReadPlan, write_config: WriteConfig, codes: dict[str, Any] | None
) -> None:
    """Writes the request; InputError where the folder holds anything else."""
    request = {
        **dataclasses.asdict(plan.config),
        **dataclasses.asdict(write_config),
        "source": str(plan.config.path.resolve()),
        CODES: codes,
        "files": plan.files,
    }
    del request["chunk_records"]  # follows from shard_records
    file = out / REQUEST
    if not file.exists():
        if any(path.name != LOCK for path in out.iterdir()):
            raise InputError(f"{out}: already exists; remove it or name another folder")
        replace_file(file, json_line({"format": FORMAT, **request}))
        return
    begun = read_json(file)
    if not isinstance(begun, dict):
        raise InputError(f"{file}: holds no object; remove {out} or name another folder")
    finished = (out / INFO).exists()
    if not finished and begun.get("format") != FORMAT:
        raise InputError(
            f"{out}: was begun by another version, which read and counted otherwise; remove it or "
            "name another folder"
        )
    for key, value in request.items():
        # Sets of earlier versions lack the newer fields.
        found = begun.get(key, _DEFAULTS.get(key))
        if found == value:
            continue
        state = "holds a set prepared" if finished else "was begun"
        difference = f"{key} = {found!r}, not {value!r}"
        if key == "files":
            listed = found or {}
            names = sorted(n for n in listed | value if listed.get(n) != value.get(n))
            difference = f"another state of the source: {escape(names[0])} has changed"
        raise InputError(
            f"{out}: {state} with {difference}; go on with what it was begun with, remove it, or "
            "name another folder"
        )


def _count(plan: ReadPlan, results: list[ChunkResult]) -> Counts:
    ignored: Counter[str] = Counter()
    for result in results:
        ignored.update(result.ignored_items)
    return Counts(
        KINDS[plan.config.kind].UNIT,
        sum(result.kept_items for result in results),
        sum(result.rejected_items for result in results),
        dict(sorted(ignored.items(), key=lambda rule: (-rule[1], rule[0]))),
    )


def _nothing_left(
    plan: ReadPlan,
    out: Path,
    results: list[ChunkResult],
    rejected: list[dict[str, Any]],
    counts: Counts,
) -> InputError:
    source = escape(plan.config.source)
    if not rejected:
        return InputError(f"{source}: holds no records; {counts}")
    count = sum(result.records for result in results)
    (why, _), *_ = summarize(rejected).most_common(1)
    return InputError(
        f"{source}: none of its {count} records can be used, most often because {why}; "
        f"{out / REJECTED} lists them"
    )


def _add_codes(coder: Any, shards: list[list[Any]], folder: Path, threads: int) -> list[list[Any]]:
    """Returns the same shards, each replaced by one with codes."""
    coded = []
    for split, name, count in tqdm(shards, "encoding images", unit="shard", disable=None):
        file, target = folder / name, folder / f"{name}.codes"
        if file.exists():
            coder.write(file, target, threads)
            file.unlink()
        coded.append([split, target.name, count])
    return coded


def _summary(out: Path) -> Summary:
    splits = tfds.builder_from_directory(str(out)).info.splits
    reasons = summarize(_read_lines(out / REJECTED))
    records = {name: split.num_examples for name, split in splits.items()}
    file = out / COUNTS_FILE
    counts = Counts(**read_json(file)) if file.exists() else None
    findings, in_both = None, 0
    if (out / INSPECTION).exists():
        lines = _read_lines(out / INSPECTION)
        findings = count_findings(lines)
        in_both = sum(line["finding"] in (EXACT, NEAR) and ACROSS in line for line in lines)
    return Summary(out, records, dict(reasons.most_common()), counts, findings, in_both)
