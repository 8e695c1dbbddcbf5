"""Prepares images with captions for training: python -m experiments.prepare SOURCE OUT

With --form, questions on images or on texts. The folder OUT is then a data set's name:
--config.data.name=OUT. Sources are a folder of images with a CSV, TSV or JSONL table, webdataset
tars, Parquet files, a Hugging Face set saved to disk, a prepared TFDS set and FBC2's JSON files
(docs/data.md). The same command resumes after it was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from clip_jax.cli import Parser
from clip_jax.errors import InputError, PartialResultError
from clip_jax.text import escape
from experiments.cli.exit_status import exit_status
from experiments.config.data import BACKGROUNDS
from experiments.data.inspection import MOST_COMPARED, TRANSPARENT
from experiments.data.parts import Part
from experiments.data.preparation import PREVIEW, prepare, prepare_part
from experiments.data.preparation_summary import INSPECTION, REJECTED, PartSummary, Summary
from experiments.data.sources import KINDS
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.schema import COLUMNS, SCHEMAS
from experiments.data.sources.shards import WriteConfig


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    if bool(args.vqgan) != bool(args.image_size):
        raise InputError("--vqgan and --image-size are needed together")
    if not 0 <= args.max_rejected <= 1:
        raise InputError(f"--max-rejected is {args.max_rejected}; expected a share, 0 to 1")
    if args.part and args.finish:
        raise InputError("--part and --finish are two calls: --finish comes after all parts")
    if args.part and args.engine:
        raise InputError("--part and --engine are two ways to share the work; leave one out")
    source = SourceConfig(
        source=args.source, kind=args.kind, form=args.form,
        from_split=args.from_split or args.split, table=args.table, data_dir=args.data_dir,
        group_by=args.group_by,
        **{column.field: getattr(args, column.field) for column in COLUMNS.values()},
    )  # fmt: skip
    write_config = WriteConfig(
        args.split, args.validation, args.max_side, args.shard_records, args.normalize_text,
        args.background, args.inspect, args.shard_bytes, args.index_only,
    )  # fmt: skip
    machine = {"workers": args.workers, "vqgan": args.vqgan, "image_size": args.image_size}
    if args.part:
        part = Part.parse(args.part)
        print(_describe_part(prepare_part(source, args.out, part, write_config, **machine)))
        return
    summary = prepare(
        source, args.out, write_config, finish=args.finish, engine=args.engine, **machine
    )
    print(escape(_describe(summary, args.background)))
    _check_rejected(summary, args.max_rejected)


def _check_rejected(summary: Summary, most: float) -> None:
    """PartialResultError where more was rejected than is accepted."""
    rejections, share = sum(summary.reasons.values()), summary.rejected_share
    if rejections and (not most or share > most):
        raise PartialResultError(
            f"{summary.folder}: is prepared without {share:.2%} of the source, which was rejected "
            f"({rejections} lines in {REJECTED}); --max-rejected=SHARE accepts a share"
        )


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", metavar="SOURCE", help="file or folder; a TFDS name with --data-dir")
    add("out", metavar="OUT", help="folder of the prepared set")
    add("--kind", choices=KINDS, default="", help="by default found from what is at SOURCE")
    add("--form", choices=SCHEMAS, default="captions",
        help="what a record has: captions and an image; question, answers and an image, or a "
        "text (context), or nothing else (captions)")
    for column in COLUMNS.values():
        usual = column.default_names[0]
        add(column.option, default="", metavar="NAME",
            help=f"by default a usual name, such as {usual}; a/b is b inside of a")
    add("--table", default="", metavar="FILE", help="of a folder that holds several")
    add("--data-dir", default="", metavar="DIR", help="where a TFDS set called SOURCE is")
    add("--split", default="train", metavar="NAME", help="of the prepared set (train)")
    add("--from-split", default="", metavar="NAME", help="of a source with several (as --split)")
    add("--validation", type=float, default=0.0, metavar="SHARE",
        help="of the records, by a hash of their keys, into a split 'validation' (0)")
    add("--group-by", default="", metavar="COLUMN",
        help="keep records with the same value in one split; also 'folder' and 'prefix' of the "
        "image's name: a/cow_1.jpg and a/cow_2.jpg are 'a' and 'a/cow' (a record alone)")
    add("--background", choices=BACKGROUNDS, default="",
        help="under transparent pixels, in training and in all that loads the model later; none: "
        "their hidden colour (the model's own)")
    add("--inspect", action=argparse.BooleanOptionalAction, default=True,
        help=f"list transparent and nearly uniform images, duplicates and repeated captions in "
        f"OUT/{INSPECTION}")
    add("--max-side", type=int, metavar="PIXELS", help="encode larger images again with this side")
    add("--shard-records", type=int, default=4096, metavar="N", help="at most (4096)")
    add("--shard-bytes", type=int, default=WriteConfig.shard_bytes, metavar="N",
        help=f"with which a shard is full too ({WriteConfig.shard_bytes})")
    add("--index-only", action="store_true",
        help="leave the images in the tars of SOURCE, which training then reads, and store where "
        "they are and a checksum (copy them)")
    add("--normalize-text", action="store_true",
        help="store texts in Unicode's form NFC (by default as the source has them)")
    add("--max-rejected", type=float, default=0.0, metavar="SHARE",
        help="of rows, members or entries that may be left out; with more the exit status is 7 (0)")
    add("--vqgan", default="", metavar="FOLDER", help="store this image tokenizer's codes too")
    add("--image-size", type=int, default=0, metavar="PIXELS", help="at which they are found")
    add("--workers", type=int, default=os.cpu_count(), metavar="N", help="processes (all cores)")
    add("--part", default="", metavar="K/N",
        help="write only the share K, 0 to N-1, of N machines that see SOURCE and OUT; after the "
        "last of them --finish (all)")
    add("--finish", action="store_true",
        help="write no shards, but what describes the set, when those of all parts are there")
    add("--engine", default="", metavar="ray[:ADDRESS]",
        help="write chunks as tasks of the Ray cluster at ADDRESS, 'auto' for the one of this "
        "machine, without it of one started here with --workers (processes)")
    return parser  # fmt: skip


def _describe_part(summary: PartSummary) -> str:
    there = f", {summary.there} of them before" if summary.there else ""
    return escape(
        f"{summary.folder}: part {summary.part}: {summary.chunks} chunks are there{there}; "
        "--finish comes after the last part"
    )


def _describe(summary: Summary, background: str) -> str:
    kept = ", ".join(f"{name} {count}" for name, count in sorted(summary.splits.items()))
    rejected = sum(summary.reasons.values())
    lines = [f"{summary.folder}: {kept}; {rejected} rejected"]
    if summary.counts is not None:
        lines.append(f"  {summary.counts}")
    lines += [f"  {count} {why}" for why, count in summary.reasons.items()]
    if rejected:
        lines.append(f"  each in {summary.folder / REJECTED}")
    lines += _describe_findings(summary, background)
    lines.append(f"  look at {summary.folder / PREVIEW}")
    return "\n".join(lines)


def _describe_findings(summary: Summary, background: str) -> list[str]:
    found = summary.findings
    if found is None:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.items()) or "nothing remarkable"
    lines = [f"  found: {kinds}"]
    if found:
        lines[0] += f"; each in {summary.folder / INSPECTION}"
    if sum(summary.splits.values()) > MOST_COMPARED:
        lines.append(f"  not compared: more than {MOST_COMPARED:,} records")
    if found.get(TRANSPARENT) and not background:
        lines.append(
            "  --background=white puts white under transparent pixels; without it the model "
            "decides, and a converted one sees their hidden colour, often black"
        )
    if summary.in_both_splits:
        lines.append(
            f"  {summary.in_both_splits} groups of duplicates lie in both splits; --group-by keeps "
            "records together"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
