"""Many runs and one table: python -m experiments.sweep --config=FILE --workdir=DIR

    [--grid KEY=VALUE,VALUE ...] [--seeds=3] [--config.KEY=VALUE ...]

Trains every variant with several seeds, each in a folder of its own, DIR/runs/VARIANT/seed-N, and
writes DIR/table.md, table.json, table.csv, plot.png and TensorBoard's hyperparameters after each.
The same command resumes after an interruption: finished runs stay as they are. A run that
diverges is listed in the table and does not end the sweep.

Without --grid the experiment file says what to compare, in functions of its own:
    get_sweep()          {name: {KEY: VALUE}}, the variants.
    get_prerequisites()  {KEY: TrainConfig}, optional: models that are trained once before, in
                         DIR/prerequisites; the key's value is then the model folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import queue
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import ModuleType

import jax

from clip_jax.atomic_file import replace_file
from clip_jax.cli import Parser, local_only
from clip_jax.errors import InputError
from clip_jax.terminal_table import print_markdown
from experiments.cli.command_line import experiment_file, load_experiment, parse_command_line
from experiments.cli.exit_status import DivergedError, exit_status
from experiments.config.run import MeshConfig, TrainConfig
from experiments.evaluation.during_training.evaluators import check_metric, make_evaluators
from experiments.planning.step import step_metrics
from experiments.sweeping.hyperparameters import write_hyperparameters
from experiments.sweeping.results import Result, Row, base_of, default_metrics, read_result
from experiments.sweeping.tables import to_csv, to_markdown
from experiments.sweeping.throughput import steps_per_second
from experiments.sweeping.variants import Variant, make_variants, parse_grid
from experiments.sweeping.worker import run_in_process
from experiments.train import check_mesh, train
from experiments.training.metrics import last_metrics
from experiments.training.partitioning import make_mesh
from experiments.workdir.lock import RunLock

Run = tuple[Variant, int]  # with its seed


@dataclasses.dataclass(frozen=True)
class Sweep:
    """metrics: names, () for the default. prerequisites: folder of the run -> its config.

    base: name of the variant that others are compared with, "": see `results.base_of`.
    jobs: runs at once. devices: ids of accelerators to share out among them; (): all see all.
    file: the experiment file, for the functions that it brings.
    """

    workdir: Path
    variants: Sequence[Variant]
    seeds: Sequence[int]
    metrics: Sequence[str] = ()
    prerequisites: Mapping[Path, TrainConfig] = dataclasses.field(default_factory=dict)
    base: str = ""
    jobs: int = 1
    devices: Sequence[str] = ()
    file: Path | None = None

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
        result = read_result(folder, config)
        if result is None:
            print(f"before the sweep: {folder}, {config.steps} steps", flush=True)
            result = run_variant(config, folder)
        if result.error:
            raise DivergedError(f"{folder}: {result.error}")
    left = [run for run in runs if results[run[0].name, run[1]] is None]
    start = time.monotonic()
    for number, ((variant, seed), result) in enumerate(_results(sweep, left), 1):
        results[variant.name, seed] = result
        lock.check()
        _write(sweep, results, plot)
        minutes = (time.monotonic() - start) / number * (len(left) - number) / 60
        of_all = f"{len(runs) - len(left) + number}/{len(runs)}"
        print(
            f"run {of_all}: {variant.name}, seed {seed}: {_described(result)}; about "
            f"{minutes:.0f} min left",
            flush=True,
        )
    return _write(sweep, results, plot)


def _results(sweep: Sweep, runs: Sequence[Run]) -> Iterator[tuple[Run, Result]]:
    """Yields the runs with their results as they end, `sweep.jobs` of them at once."""

    def result_of(run: Run, devices: Sequence[str] = ()) -> Result:
        variant, seed = run
        config, folder = dataclasses.replace(variant.config, seed=seed), sweep.folder(*run)
        print(f"begins: {variant.name}, seed {seed}", flush=True)
        try:
            if sweep.jobs == 1:
                return run_variant(config, folder)
            return run_in_process(config, folder, devices, sweep.file)
        except InputError as error:
            raise InputError(f"variant {variant.name}: {error}") from error

    if sweep.jobs == 1:
        for run in runs:
            yield run, result_of(run)
        return
    shares: queue.SimpleQueue[Sequence[str]] = queue.SimpleQueue()
    for job in range(sweep.jobs):
        shares.put(sweep.devices[job :: sweep.jobs])

    def on_a_share(run: Run) -> Result:
        devices = shares.get()
        try:
            return result_of(run, devices)
        finally:
            shares.put(devices)

    pool = ThreadPoolExecutor(sweep.jobs)
    try:
        futures = {pool.submit(on_a_share, run): run for run in runs}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        # Runs that have begun end by themselves: Ctrl-C reaches their processes too.
        pool.shutdown(cancel_futures=True)


def check(sweep: Sweep) -> None:
    """InputError for metrics, meshes, data and evaluators that do not fit; trains nothing."""
    if sweep.base and sweep.base not in {variant.name for variant in sweep.variants}:
        known = ", ".join(variant.name for variant in sweep.variants)
        raise InputError(f"--base is {sweep.base!r}; expected one of {known}")
    for variant in sweep.variants:
        config = variant.config
        try:
            if sweep.jobs == 1:  # the devices of a process of its own are not known here
                check_mesh(config, make_mesh(config.mesh))
            make_evaluators(config)
        except InputError as error:
            raise InputError(f"variant {variant.name}: {error}") from error
        for metric in sweep.metrics:
            owner = metric.partition("/")[0]
            if owner not in ("train", *config.evaluators) or owner == metric:
                known = ", ".join(f"{name}/NAME" for name in ("train", *config.evaluators))
                raise InputError(f"--metric is {metric!r}; expected one of {known}")
            if owner == "train":
                _check_train_metric(config, metric)
            else:
                check_metric(config, metric, "--metric")


def _check_train_metric(config: TrainConfig, metric: str) -> None:
    """Raises InputError unless the training step, which is traced for that, gives such a metric."""
    alone = dataclasses.replace(config, mesh=MeshConfig(), parallel="jit")
    known = {f"train/{name}" for name in step_metrics(alone, jax.devices()[:1])}
    if metric not in known | {"train/learning_rate"}:
        listed = ", ".join(sorted(known | {"train/learning_rate"}))
        raise InputError(f"--metric is {metric!r}; expected one of {listed}")


def run_variant(config: TrainConfig, folder: Path) -> Result:
    """Trains in a folder, or resumes there, and writes the result, of a diverged run too."""
    begun = (folder / "checkpoints").exists()
    start = time.monotonic()
    try:
        metrics = train(config, folder).metrics
    except DivergedError as error:
        result = Result(config.to_dict(), last_metrics(folder), None, None, str(error))
    else:
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
    base = base_of(rows, sweep.base)
    data = {"metrics": metrics, "seeds": list(sweep.seeds), "base": base.variant.name}
    data["rows"] = [row.to_dict(metrics, base) for row in rows]
    text = json.dumps(data, ensure_ascii=False, indent=1)
    replace_file(sweep.workdir / "table.json", text + "\n")
    replace_file(sweep.workdir / "table.md", to_markdown(rows, metrics, sweep.seeds, base))
    replace_file(sweep.workdir / "table.csv", to_csv(rows, metrics))
    write_hyperparameters(sweep.workdir / "tensorboard", rows, metrics)
    folders = [
        [sweep.folder(row.variant, seed) for seed, r in row.results.items() if not r.error]
        for row in rows
    ]
    replace_file(sweep.workdir / "plot.png", plot.plot(rows, folders, metrics))
    return rows


def _described(result: Result) -> str:
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
    args, rest = _parser().parse_known_args(argv)
    if args.config is None or args.workdir is None:
        raise InputError("--config=FILE and --workdir=DIR are both needed")
    if args.seeds < 1:
        raise InputError(f"--seeds is {args.seeds}; expected at least 1")
    if args.jobs < 1:
        raise InputError(f"--jobs is {args.jobs}; expected at least 1")
    devices = [device for device in args.devices.split(",") if device]
    if devices and len(devices) < args.jobs:
        raise InputError(f"--devices has {len(devices)} ids; expected one or more for each job")
    args.config = experiment_file(args.config)
    module = load_experiment(args.config)
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
    return Sweep(
        workdir, make_variants(base, named), seeds, args.metric, prerequisites, args.base,
        args.jobs, devices, args.config,
    )  # fmt: skip


def _parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.sweep", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--config", type=local_only, metavar="FILE", help="the experiment file; --config.KEY=VALUE "
        "overrides one of its keys in all variants")
    add("--workdir", type=local_only, metavar="DIR", help="folder of the sweep")
    add("--grid", action="append", default=[], metavar="KEY=VALUE,VALUE",
        help="values of a key; variants are the product of all grids; may be repeated")
    add("--seeds", type=int, default=3, metavar="N",
        help="seeds of each variant, from config.seed on (3)")
    add("--metric", action="append", default=[], metavar="NAME",
        help="EVALUATOR/NAME or train/NAME, of which the last value counts; may be repeated; by "
        "default all that config.evaluators measure, or train/loss")
    add("--base", default="", metavar="NAME",
        help="the variant that others are compared with, seed by seed; by default base, else the "
        "first")
    add("--jobs", type=int, default=1, metavar="N",
        help="runs at once, each in a process with its log in the run's folder; 1 runs them one "
        "after another in this process (1)")
    add("--devices", default="", metavar="ID,ID",
        help="accelerators to share out among the jobs; by default each job sees all")
    return parser  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        sweep = parse(argv)
        run_sweep(sweep)
        print_markdown((sweep.workdir / "table.md").read_text(encoding="utf-8"))
        print(f"{sweep.workdir}: table.md table.json table.csv plot.png")

    return exit_status(work, argv)


if __name__ == "__main__":
    sys.exit(main())
