"""Checks what a run needs before it starts: python -m experiments.preflight --config=FILE

    [--workdir=DIR] [--distributed=auto|HOST:PORT,COUNT,INDEX] [--config.KEY=VALUE ...]

Start it as the run itself, on all of its processes. It reads and writes what the run would, a file
or a few rows each, trains nothing, and leaves nothing behind. It prints one table, and a line for
each error, with exit status 2. `experiments.train` makes the quick ones of these checks too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from clip_jax.cli import Parser
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.errors import InputError
from clip_jax.model_folder import read_config
from clip_jax.paths import as_path, is_remote
from clip_jax.terminal_table import print_table
from experiments.cli.command_line import parse_command_line, take_distributed
from experiments.cli.exit_status import exit_status
from experiments.config.run import TrainConfig
from experiments.data.background import use_background
from experiments.data.source import open_split
from experiments.distributed.processes import Processes, initialize, run_and_shutdown
from experiments.evaluation.during_training.evaluators import make_evaluators
from experiments.start_checks import data
from experiments.start_checks.hours import describe_hours
from experiments.start_checks.processes import check_clocks, check_versions
from experiments.start_checks.storage import check_space, check_writable
from experiments.start_checks.table import (
    ERROR,
    OK,
    VERDICT_STYLES,
    WARNING,
    Findings,
    format_table,
)
from experiments.train import check_mesh
from experiments.training import partitioning
from experiments.training.run_objective import make_run_objective

Row = tuple[str, str, str]


def preflight(
    config: TrainConfig, workdir: Path | None, step_seconds: float | None = None
) -> list[Row]:
    """Returns (check, verdict, text) of each check: "ok", "warning" or "error".

    Every process of a run calls it, and all get the same rows. workdir: None leaves out what is of
    it. step_seconds: what a step takes, for the hours of the whole run; None: by
    docs/accelerators.json.
    """
    processes, found = Processes(), Findings()
    made = _missing_folders(workdir)
    found.attempt("versions", lambda: check_versions(processes))
    found.attempt("clocks", lambda: check_clocks(processes))
    mesh = found.attempt("devices", lambda: partitioning.make_mesh(config.mesh))
    if mesh is not None:
        found.attempt("batch size", lambda: _check_batch_size(config, mesh, processes.count))
    if workdir is None:
        found.add("workdir", WARNING, "not checked: no --workdir is given")
    else:
        written = found.attempt("workdir", lambda: check_writable(workdir, processes.index))
        if all(processes.gather("written" if written else "")):
            found.attempt("workdir", lambda: processes.require_shared_folder(workdir))
    found.attempt("compiled programs", enable_compilation_cache)
    split = processes.first_then_others(
        lambda: found.attempt(
            "data", lambda: open_split(config.data, config.data.split, config.extensions.data)
        )
    )
    if config.init.folder:
        found.attempt("initial weights", lambda: _describe_model(config.init.folder))
    if config.evaluators:

        def evaluators() -> None:
            if split is not None:  # else they lack the same
                found.attempt("evaluators", lambda: ", ".join(make_evaluators(config)))

        processes.first_then_others(evaluators)
    lazy = dataclasses.replace(config, data=dataclasses.replace(config.data, in_memory=False))
    objective = None
    if mesh is not None:
        objective = found.attempt("model", lambda: make_run_objective(lazy, mesh))
    if split is not None:
        _check_data(config, lazy, workdir, found, split, objective, processes)
    if objective is not None and workdir is not None and processes.first:
        found.attempt("free space", lambda: check_space(config, objective, workdir))
    found.attempt("hours", lambda: describe_hours(config, step_seconds, jax.devices()))
    rows = found.gather(processes)
    if processes.first:
        for folder in made:  # all processes have written what they wanted
            with contextlib.suppress(OSError):  # something else is there by now
                folder.rmdir()
    return rows


def _missing_folders(workdir: Path | None) -> list[Path]:
    """Returns a local folder and those above it that are not there, the innermost first."""
    if workdir is None or is_remote(workdir):
        return []
    return [folder for folder in (workdir, *workdir.parents) if not folder.exists()]


def _check_data(
    config: TrainConfig,
    lazy: TrainConfig,
    workdir: Path | None,
    found: Findings,
    split: Any,
    objective: Any,
    processes: Processes,
) -> None:
    """lazy: the config, with nothing held in memory, of `objective`."""
    whole = found.attempt("data", lambda: data.check_shards(split))
    if limits := found.attempt("open files", lambda: data.check_open_files(split)):
        said, warning = limits
        found.add("open files", WARNING if warning else OK, warning or said)
    found.attempt("memory", lambda: data.check_memory(config, split))
    lazy = found.attempt("background", lambda: use_background(lazy, split))
    if objective is None or lazy is None:
        return
    vocabulary = found.attempt(
        "vocabulary", lambda: data.check_vocabulary_files(config, objective, split, workdir)
    )
    if vocabulary is None:
        return
    said, tokenizer = vocabulary
    found.add("vocabulary", OK, said)
    if whole is not None:
        place = processes.index, processes.count
        found.attempt(
            "first rows", lambda: data.check_batch(lazy, objective, split, tokenizer, *place)
        )


def _check_batch_size(config: TrainConfig, mesh: jax.sharding.Mesh, processes: int) -> str:
    check_mesh(config, mesh)
    size = config.data.batch_size
    if size % processes:
        raise InputError(
            f"config.data.batch_size is {size}; expected a multiple of the {processes} processes"
        )
    axes = ", ".join(f"{axis} {count}" for axis, count in mesh.shape.items())
    return f"{size:,} over {mesh.size} devices ({axes}) of {processes} processes"


def _describe_model(folder: str) -> str:
    return f"{folder}: a model of kind {read_config(as_path(folder)).get('kind')!r}"


def run(argv: Sequence[str]) -> None:
    args, others = _parser().parse_known_args(argv)
    if args.step_seconds is not None and not args.step_seconds > 0:
        raise InputError(f"--step-seconds is {args.step_seconds}; expected a positive number")
    how, others = take_distributed(others)
    given = any(argument.startswith("--workdir") for argument in others)
    config, workdir = parse_command_line(others if given else [*others, "--workdir=."])
    initialize(how)
    rows = preflight(config, workdir if given else None, args.step_seconds)
    first = jax.process_index() == 0
    if first:
        print_table(
            format_table(rows), ("check", "verdict", "found"), rows, styles=VERDICT_STYLES
        )
    errors = [f"{name}: {text}" for name, verdict, text in rows if verdict == ERROR]
    for line in errors[:-1] if first else ():
        print(f"error: {line}", file=sys.stderr)
    if errors:
        raise InputError(errors[-1])


def _parser() -> Parser:
    parser = Parser(prog="python -m experiments.preflight", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--step-seconds", type=float, metavar="S",
        help="what a step takes, by python -m experiments.plan, for the expected hours "
        "(that of docs/accelerators.json)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return run_and_shutdown(lambda: exit_status(lambda: run(argv), argv))


if __name__ == "__main__":
    sys.exit(main())
