"""Options that all bulk work has in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from clip_jax.bulk.items import Source
from clip_jax.bulk.run import Task, check_report, run_bulk
from clip_jax.cli import any_path, positive_int
from clip_jax.part import Part
from clip_jax.paths import is_remote


def add_bulk_options(parser: Any, piece_items: int) -> None:
    """Adds --piece-items and --part to a parser or a group of its options."""
    parser.add_argument(
        "--piece-items", type=positive_int, default=piece_items, metavar="N",
        help="items of a piece, which is written at once and not done twice",
    )  # fmt: skip
    parser.add_argument(
        "--part",
        default="",
        metavar="K/N",
        help="do only the share K, 0 to N-1, of N processes that see the source and --out (all)",
    )


def add_out_option(parser: Any, suffix: str) -> None:
    """Adds --out, whose default is beside the source."""
    parser.add_argument(
        "--out", type=any_path, metavar="DIR",
        help=f"folder of the results (SOURCE{suffix}); work that was begun in it is resumed",
    )  # fmt: skip


def out_beside(source: Path, suffix: str) -> Path:
    """Returns the folder of results for a source; in the current folder for one in a bucket."""
    name = f"{source.name}{suffix}"
    return Path(name) if is_remote(source) else source.absolute().with_name(name)


def run_from_options(
    args: argparse.Namespace, task: Task, source: Source, out: Path, settings: dict[str, Any]
) -> None:
    """Does the work that was asked for and prints its counts."""
    part = Part.parse(args.part) if args.part else None
    report = run_bulk(
        task, source, out, settings, piece_items=args.piece_items, part=part, quiet=args.quiet
    )
    check_report(report, out, part, args.quiet)
