"""Arguments that tasks share, and what they open."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from clip_jax import Compute
from clip_jax.errors import InputError
from clip_jax.text import escape
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.bench import Bench
from experiments.evaluation.clip_model import System, open_system
from experiments.evaluation.image_features import Encoder
from experiments.evaluation.sets import DATA_DIR, RECORDS, MissingSet
from experiments.evaluation.sets.table import REPORT

OUT, CACHE = Path("runs/evaluation"), Path("runs/evaluation/cache")
DTYPES = ("float32", "bfloat16", "float16")


def add_systems(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="[NAME=]FOLDER",
        help="a model folder, with the name that tables shall give it; may be repeated")
    add("--translated", action="append", default=[], metavar="FOLDER=FILE",
        help="a model that reads English, with translations of Russian prompts from a file of "
        "python -m experiments.translate; may be repeated")
    add("--average", choices=("ruclip", "clip"),
        help="how a class's prompts are averaged (as the model's authors did)")  # fmt: skip
    add_running(parser)


def add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dtype", choices=DTYPES, default="float32", help="to compute in (float32)")
    add("--batch-size", type=int, default=64, metavar="N", help="pictures a device takes (64)")
    add("--out", type=Path, default=OUT, metavar="DIR", help=f"of results ({OUT})")
    add("--cache", type=Path, default=CACHE, metavar="DIR", help=f"of features ({CACHE})")
    add("--data-dir", type=Path, default=Path(DATA_DIR), metavar="DIR",
        help=f"where data sets lie ({DATA_DIR})")  # fmt: skip


def add_sets(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sets", default=",".join(REPORT), metavar="NAME,...",
        help=f"of {', '.join(RECORDS)}, or folders of one's own (the 18 of the report)")
    add("--test-split", default="test", metavar="NAME", help="to measure on (test)")
    add("--class-names", type=Path, metavar="FILE",
        help="JSON of names and templates in place of the project's")  # fmt: skip


def benches(args: argparse.Namespace) -> Iterator[Bench]:
    """One for each system, opened when it is its turn."""
    if not args.model and not args.translated:
        raise InputError("--model=FOLDER is needed, or --translated=FOLDER=FILE")
    cache = ArrayCache(args.cache)
    for system in _systems(args):
        encoder = Encoder(
            system,
            devices=jax.local_devices(),
            rows=args.batch_size,
            process=(jax.process_index(), jax.process_count()),
            cache=cache,
        )
        yield Bench(encoder, args.data_dir, args.out, getattr(args, "class_names", None))


def _systems(args: argparse.Namespace) -> Iterator[System]:
    options: dict[str, Any] = {"average": args.average, "compute": Compute(dtype=args.dtype)}
    for value in args.model:
        name, _, folder = value.rpartition("=")
        system = open_system(folder, **options)
        yield dataclasses.replace(system, name=name) if name else system
    for value in args.translated:
        folder, _, file = value.rpartition("=")
        if not folder:
            raise InputError(f"--translated={value}; expected FOLDER=FILE")
        yield open_system(folder, translations=file, **options)


def for_each_set(
    names: Sequence[str], work: Callable[[str], None], needed: bool = True
) -> dict[str, str]:
    """work(name) of all sets that are on disk; what to do about the others, by name.

    needed: whether to raise MissingSet where none is on disk.
    """
    missing: dict[str, str] = {}
    for name in names:
        try:
            work(name)
        except MissingSet as error:
            missing[name] = str(error)
            say(f"missing: {error}", file=sys.stderr)
    if needed and len(missing) == len(names):
        raise MissingSet(f"no set is on disk; {missing[names[0]]}")
    return missing


def set_names(args: argparse.Namespace) -> list[str]:
    names = [name for name in args.sets.split(",") if name]
    if not names:
        raise InputError("--sets is empty; expected names with commas between them")
    return names


def drawing() -> ModuleType:
    """`experiments.evaluation.report.figures`, which needs the extra `demo`."""
    try:
        from experiments.evaluation.report import figures
    except ModuleNotFoundError as error:
        raise InputError(
            f"pictures need the package {error.name!r}, which is not installed: "
            "pip install 'rudolph-jax[demo]'"
        ) from error
    return figures


def say(*words: Any, **options: Any) -> None:
    """Prints on one host of all; what no encoding has, of undecodable file names, as escapes."""
    if jax.process_index() == 0:
        print(*(escape(str(word)) for word in words), **options, flush=True)
