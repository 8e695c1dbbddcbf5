"""Many runs and one table: python -m experiments.sweep --config=FILE --workdir=DIR

    [--grid KEY=VALUE,VALUE ...] [--seeds=3] [--metric=NAME ...] [--config.KEY=VALUE ...]

Trains every variant with several seeds, one after another in this process, each in a folder of its
own, DIR/runs/VARIANT/seed-N, and writes DIR/table.md, DIR/table.json and DIR/plot.png after each.
The same command resumes after an interruption: finished runs stay as they are. A run that
diverges is listed in the table and does not end the sweep.

--grid: variants are the product of all of them. Without it the experiment file says what to
compare, in functions of its own:
    get_sweep()          {name: {KEY: VALUE}}, the variants.
    get_prerequisites()  {KEY: TrainConfig}, optional: models that are trained once before, in
                         DIR/prerequisites; the key's value is then the model folder.
--seeds: how many, counted from config.seed.
--metric: "EVALUATOR/NAME" or "train/NAME"; by default all that config.evaluators measure, or
    train/loss. Of each the last value counts.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

from clip_jax.atomic_file import replace_file
from clip_jax.command import Parser
from clip_jax.errors import InputError
from experiments.cli.command_line import experiment_file, parse_command_line
from experiments.cli.exit_status import DivergedError, exit_status
from experiments.config.run import TrainConfig
from experiments.evaluation.during_training.evaluators import make_evaluators
from experiments.sweeping.results import (
    Result,
    Row,
    default_metrics,
    read_result,
    table,
)
from experiments.sweeping.throughput import steps_per_second
from experiments.sweeping.variants import Variant, make_variants, parse_grid
from experiments.train import check_mesh, train
from experiments.training.metrics import last_metrics
from experiments.training.partitioning import make_mesh
from experiments.workdir.lock import RunLock


@dataclasses.dataclass(frozen=True)
class Sweep:
    """metrics: names, () for the default. prerequisites: folder of the run -> its config."""

    workdir: Path
    variants: Sequence[Variant]
    seeds: Sequence[int]
    metrics: Sequence[str] = ()
    prerequisites: Mapping[Path, TrainConfig] = dataclasses.field(default_factory=dict)

    def folder(self, variant: Variant, seed: int) -> Path:
        return self.workdir / "runs" / variant.folder / f"seed-{seed}"


def run_sweep(sweep: Sweep) -> list[Row]:
    """Trains what is not over yet and writes the table after every run.

    Raises InputError, before anything is trained, for what no run could use, for folders that
    hold other runs, and where another sweep or run writes into the folder.
    """
    plot = _import_plot()
    check(sweep)
    with RunLock(sweep.workdir) as lock:
        return _run(sweep, plot, lock)


def _run(sweep: Sweep, plot: ModuleType, lock: RunLock) -> list[Row]:
    runs = [(variant, seed) for variant in sweep.variants for seed in sweep.seeds]
    results = {
        (variant.name, seed): read_result(
            sweep.folder(variant, seed), dataclasses.replace(variant.config, seed=seed)
        )
        for variant, seed in runs
    }
    for folder, config in sweep.prerequisites.items():
        if read_result(folder, config) is None:
            print(f"before the sweep: {folder}, {config.steps} steps", flush=True)
            finish(config, folder)
    left = [run for run in runs if results[run[0].name, run[1]] is None]
    start = time.monotonic()
    for number, (variant, seed) in enumerate(left, 1):
        of_all = f"{len(runs) - len(left) + number}/{len(runs)}"
        print(f"run {of_all}: {variant.name}, seed {seed}", flush=True)
        config = dataclasses.replace(variant.config, seed=seed)
        folder = sweep.folder(variant, seed)
        try:
            result = finish(config, folder)
        except DivergedError as error:
            result = Result(config.to_dict(), last_metrics(folder), None, None, str(error))
            result.save(folder)
        except InputError as error:
            raise InputError(f"variant {variant.name}: {error}") from error
        results[variant.name, seed] = result
        lock.check()
        _write(sweep, results, plot)
        minutes = (time.monotonic() - start) / number * (len(left) - number) / 60
        print(f"run {of_all}: {_told(result)}; about {minutes:.0f} min left", flush=True)
    return _write(sweep, results, plot)


def check(sweep: Sweep) -> None:
    """InputError for metrics, meshes, data and evaluators that do not fit; trains nothing."""
    for variant in sweep.variants:
        config = variant.config
        try:
            check_mesh(config, make_mesh(config.mesh))
            make_evaluators(config)
        except InputError as error:
            raise InputError(f"variant {variant.name}: {error}") from error
        for metric in sweep.metrics:
            owner = metric.partition("/")[0]
            if owner not in ("train", *config.evaluators) or owner == metric:
                known = ", ".join(f"{name}/NAME" for name in ("train", *config.evaluators))
                raise InputError(f"--metric is {metric!r}; expected one of {known}")


def finish(config: TrainConfig, folder: Path) -> Result:
    """Trains in a folder, or resumes there, and writes the result beside the run."""
    begun = (folder / "checkpoints").exists()
    start = time.monotonic()
    metrics = train(config, folder).metrics
    seconds = None if begun else time.monotonic() - start
    result = Result(config.to_dict(), metrics, steps_per_second(folder), seconds)
    result.save(folder)
    return result


def _write(
    sweep: Sweep, results: Mapping[tuple[str, int], Result | None], plot: ModuleType
) -> list[Row]:
    rows = []
    for variant in sweep.variants:
        of_seed = {seed: results[variant.name, seed] for seed in sweep.seeds}
        rows.append(Row(variant, {seed: r for seed, r in of_seed.items() if r is not None}))
    metrics = list(sweep.metrics) or default_metrics(rows)
    data = {"metrics": metrics, "seeds": list(sweep.seeds)}
    data["rows"] = [row.to_dict(metrics) for row in rows]
    text = json.dumps(data, ensure_ascii=False, indent=1)
    replace_file(sweep.workdir / "table.json", text + "\n")
    replace_file(sweep.workdir / "table.md", table(rows, metrics, len(sweep.seeds)))
    folders = [
        [sweep.folder(row.variant, seed) for seed, r in row.results.items() if not r.error]
        for row in rows
    ]
    replace_file(sweep.workdir / "plot.png", plot.plot(rows, folders, metrics))
    return rows


def _told(result: Result) -> str:
    if result.error:
        return f"diverged ({result.error})"
    measured = {k: v for k, v in result.metrics.items() if not k.startswith("train/")}
    shown = measured or {"train/loss": result.metrics["train/loss"]}
    return "  ".join(f"{name} {value:.4f}" for name, value in shown.items())


def _import_plot() -> ModuleType:
    try:
        from experiments.sweeping import plot
    except ModuleNotFoundError as error:
        raise InputError(
            f"plot.png needs the package {error.name!r}, which is not installed:"
            " pip install 'rudolph-jax[demo]'"
        ) from error
    return plot


def parse(argv: Sequence[str]) -> Sweep:
    """Anything unknown or ill-typed raises InputError."""
    parser = Parser(prog="python -m experiments.sweep", allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--grid", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--metric", action="append", default=[])
    args, rest = parser.parse_known_args(argv)
    if args.config is None or args.workdir is None:
        raise InputError("--config=FILE and --workdir=DIR are both needed")
    if args.seeds < 1:
        raise InputError(f"--seeds is {args.seeds}; expected at least 1")
    args.config = experiment_file(args.config)
    module = load(args.config)
    given = {argument.partition("=")[0].removeprefix("--config.") for argument in rest}
    prerequisites = {}
    if hasattr(module, "get_prerequisites"):
        for key, config in module.get_prerequisites().items():
            if key not in given:
                folder = args.workdir / "prerequisites" / key
                prerequisites[folder] = config
                rest.append(f"--config.{key}={folder / 'model'}")
    base, workdir = parse_command_line(
        [f"--config={args.config}", f"--workdir={args.workdir}", *rest]
    )
    if args.grid:
        named = parse_grid(args.grid, base)
    elif hasattr(module, "get_sweep"):
        named = module.get_sweep()
    else:
        raise InputError(
            f"nothing to compare: give --grid KEY=VALUE,VALUE, or define get_sweep() in "
            f"{args.config}"
        )
    seeds = range(base.seed, base.seed + args.seeds)
    return Sweep(workdir, make_variants(base, named), seeds, args.metric, prerequisites)


def load(file: Path) -> ModuleType:
    """The experiment file as a module."""
    if not file.is_file():
        raise InputError(f"--config: {file} is no experiment file")
    spec = importlib.util.spec_from_file_location("experiment_file", file)
    if spec is None:
        raise InputError(f"--config: {file} is no experiment file; expected a name ending in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"--config: {error.filename}, line {error.lineno}: {error.msg}") from error
    return module


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0

    def work() -> None:
        sweep = parse(argv)
        run_sweep(sweep)
        print(f"{(sweep.workdir / 'table.md').read_text(encoding='utf-8')}\n"
              f"table, plot: {sweep.workdir}/table.md table.json plot.png")  # fmt: skip

    return exit_status(work, argv)


if __name__ == "__main__":
    sys.exit(main())
