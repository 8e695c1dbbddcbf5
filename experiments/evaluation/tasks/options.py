"""Arguments that tasks share, what they open, and the loop over models and sets."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax

from clip_jax import Compute
from clip_jax.cli import any_path
from clip_jax.errors import InputError
from clip_jax.progress import elapsed_lines
from clip_jax.terminal_table import on_terminal, print_table
from experiments.data.sources.labels import MissingSplit
from experiments.evaluation.array_cache import ArrayCache
from experiments.evaluation.clip_model import ClipModel, open_clip
from experiments.evaluation.console import print_line
from experiments.evaluation.remarks import Remarks, left_out
from experiments.evaluation.rudolph_model import RudolphModel, open_rudolph
from experiments.evaluation.run import EvalRun, Result
from experiments.evaluation.sets import DATA_DIR, RECORDS, MissingSet
from experiments.evaluation.sets.table import REPORT
from rudolph_jax.pretrained import WEIGHTS

OUT, CACHE = Path("runs/evaluation"), Path("runs/evaluation/cache")
TRAIN = "train"  # the split that no measure is taken on
DTYPES = ("float32", "bfloat16", "float16")


def add_models(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", action="append", default=[], metavar="[NAME=]FOLDER",
        help="a model folder, with the name that tables shall give it; may be repeated")
    add("--translated", action="append", default=[], metavar="FOLDER=FILE",
        help="a model that reads English, with translations of Russian prompts from a file of "
        "python -m experiments.translate; may be repeated")
    add("--average", choices=("ruclip", "clip"),
        help="how a class's prompts are averaged (as the model's authors did)")  # fmt: skip
    add_running(parser)


def add_rudolph(parser: argparse.ArgumentParser, sets: str) -> None:
    """sets: what --sets takes."""
    add = parser.add_argument
    add("--model", required=True, metavar="[NAME=]FOLDER",
        help="a RUDOLPH's model folder, with the name that tables shall give it")
    add("--vqgan", required=True, metavar="FOLDER", help="its image tokenizer's model folder")
    add("--sets", required=True, metavar="NAME,...", help=sets)
    add("--test-split", default="test", metavar="NAME", help="to measure on (test)")
    add("--first", type=int, metavar="N", help="measure on a set's first N examples (all)")
    add("--weights", choices=WEIGHTS, default=WEIGHTS[0], help="of the layers (stored)")
    add_running(parser)  # fmt: skip


def add_running(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dtype", choices=DTYPES, default="float32", help="to compute in (float32)")
    add("--batch-size", type=int, default=64, metavar="N", help="images a device takes (64)")
    add("--out", type=any_path, default=OUT, metavar="DIR", help=f"of results ({OUT})")
    add("--cache", type=any_path, default=CACHE, metavar="DIR", help=f"of features ({CACHE})")
    add("--data-dir", type=any_path, default=Path(DATA_DIR), metavar="DIR",
        help=f"where data sets lie ({DATA_DIR})")  # fmt: skip


def add_sets(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sets", default=",".join(REPORT), metavar="NAME,...",
        help=f"of {', '.join(RECORDS)}, or folders of one's own (the 18 of the report)")
    add("--test-split", default="test", metavar="NAME", help="to measure on (test)")
    add("--class-names", type=any_path, metavar="FILE",
        help="JSON of names and templates in place of the project's")  # fmt: skip


def add_ruclip(parser: argparse.ArgumentParser, needed: bool) -> None:
    parser.add_argument(
        "--ruclip", required=needed, metavar="FOLDER",
        help="a ruCLIP's model folder, which compares captions and images",
    )  # fmt: skip


def clip_runs(args: argparse.Namespace) -> Iterator[EvalRun[ClipModel]]:
    """Yield a run for each model, which is loaded then."""
    if not args.model and not args.translated:
        raise InputError("--model=FOLDER is needed, or --translated=FOLDER=FILE")
    cache = ArrayCache(args.cache)
    for value, translated in [
        *((value, False) for value in args.model),
        *((value, True) for value in args.translated),
    ]:
        if translated:
            folder, _, file = value.rpartition("=")
            if not folder:
                raise InputError(f"--translated={value}; expected FOLDER=FILE")
            which: dict[str, Any] = {"translations": file}
        else:
            name, _, folder = value.rpartition("=")
            which = {"name": name}
        model = open_clip(
            folder, average=args.average, compute=Compute(dtype=args.dtype), cache=cache,
            batch_size=args.batch_size, devices=jax.local_devices(), **which,
        )  # fmt: skip
        class_names = getattr(args, "class_names", None)
        yield EvalRun(model, args.data_dir, args.out, class_names=class_names)


def rudolph_run(args: argparse.Namespace) -> EvalRun[RudolphModel]:
    if jax.process_count() > 1:
        raise InputError(
            f"{args.task} runs on one host, not on {jax.process_count()}; leave --distributed out"
        )
    name, _, folder = args.model.rpartition("=")
    model = open_rudolph(
        folder, args.vqgan, compute=Compute(dtype=args.dtype), weights=args.weights, name=name,
        batch_size=args.batch_size,
    )  # fmt: skip
    return EvalRun(model, args.data_dir, args.out, ArrayCache(args.cache), first=args.first)


def ruclip(args: argparse.Namespace) -> ClipModel | None:
    if args.ruclip is None:
        return None
    return open_clip(args.ruclip, batch_size=args.batch_size, compute=Compute(dtype=args.dtype))


def measure_sets(
    runs: Iterable[EvalRun[Any]],
    args: argparse.Namespace,
    measure: Callable[[EvalRun[Any], str], Result],
    lines: Callable[[str, Result], Iterable[str]],
    folder: str,
    written: str = "results",
) -> None:
    """Measures each model on each set, prints lines and remarks, and where the results are.

    lines: of a set's name and its result.
    folder: of the task's results, in the model's.
    """
    remarks = Remarks()
    rows: list[tuple[str, ...]] = []
    for run in runs:

        def of_set(name: str, run: EvalRun[Any] = run) -> None:
            # On a terminal there are bars.
            quiet = sys.stderr.isatty() or jax.process_index() > 0
            with elapsed_lines(f"{run.name}  {name}", quiet=quiet):
                result = measure(run, name)
            for line in lines(name, result):
                print_line(f"{run.name}  {line}{left_out(result)}")
                what, _, found = line.partition(": ")
                rows.append((run.name, what, f"{found}{left_out(result)}"))
            remarks.print(run.name, result)

        for_each_set(set_names(args), of_set, args.test_split)
        print_line(f"{written}: {run.folder / folder}")
    print_all(rows)
    remarks.finish()


def print_all(rows: Sequence[tuple[str, ...]]) -> None:
    """Prints what was measured as one table, on a terminal, where the lines were several."""
    if len(rows) > 1 and jax.process_index() == 0 and on_terminal(sys.stdout):
        print_table("", ("model", "set", "found"), rows)


def for_each_set(
    names: Sequence[str], work: Callable[[str], None], test_split: str, needed: bool = True
) -> dict[str, str]:
    """work(name) of all sets that are on disk; what to do about the others, by name.

    test_split: the split to measure on; where a set lacks it, the error names one that it has.
    needed: whether to raise MissingSet where none is on disk.
    """
    missing: dict[str, str] = {}
    for name in names:
        try:
            work(name)
        except MissingSet as error:
            missing[name] = str(error)
            print_line(f"missing: {error}", file=sys.stderr)
        except MissingSplit as error:
            held_out = sorted(split for split in error.known if split != TRAIN)
            if error.split != test_split or not held_out:
                raise
            raise InputError(f"{error}; --test-split={held_out[0]} measures on it") from error
    if needed and len(missing) == len(names):
        raise MissingSet(f"no set is on disk; {missing[names[0]]}")
    return missing


def set_names(args: argparse.Namespace) -> list[str]:
    names = [name for name in args.sets.split(",") if name]
    if not names:
        raise InputError("--sets is empty; expected names with commas between them")
    return names


def load_figures() -> ModuleType:
    """Imports `experiments.evaluation.report.figures`, which needs the extra `demo`."""
    try:
        from experiments.evaluation.report import figures
    except ModuleNotFoundError as error:
        raise InputError(
            f"figures need the package {error.name!r}, which is not installed: "
            "pip install 'rudolph-jax[demo]'"
        ) from error
    return figures
