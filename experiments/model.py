"""Writes a model folder from any checkpoint: python -m experiments.model WORKDIR OUT [--step=N]

    python -m experiments.model runs/cats models/cats              # the newest checkpoint
    python -m experiments.model runs/cats models/cats --step=best  # by the config's best_metric
    python -m experiments.model runs/cats models/cats --step=400 --no-ema
    python -m experiments.model runs/cats models/cats --wise-ft=0.5  # half of what it began from

The config comes from the checkpoint. Works beside a run that is still training, and after one that
was killed; the workdir is only read.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from clip_jax.cli import Parser
from clip_jax.compilation_cache import enable_compilation_cache
from clip_jax.errors import InputError
from clip_jax.paths import as_path
from clip_jax.progress import elapsed_lines
from clip_jax.tokenizer import FILE_NAME, Tokenizer, load_tokenizer
from experiments.cli.command_line import load_extensions
from experiments.cli.exit_status import exit_status
from experiments.config.extensions import NO_EXTENSIONS, Extensions
from experiments.config.run import MeshConfig, TrainConfig, check
from experiments.objectives.objective import Objective, Pretrained
from experiments.training import partitioning
from experiments.training.loop import as_pretrained
from experiments.training.run_objective import make_run_objective
from experiments.training.state import model_params
from experiments.training.trainable import partition, trainable_mask

if TYPE_CHECKING:
    from experiments.training.checkpoint import Checkpoints

CHECKPOINTS = "checkpoints"


def load_checkpoint(
    workdir: str | Path,
    step: int | str | None = None,
    ema: bool | None = None,
    wise_ft: float | None = None,
    extensions: Extensions = NO_EXTENSIONS,
) -> Pretrained:
    """Returns the model of a checkpoint.

    step: None for the newest, "best" for the best one by the config's `best_metric`, or a number.
    ema: whether averages take the place of the parameters; None: where the run has averages.
    wise_ft: in place of the run's `config.init.wise_ft`. extensions: own functions that the run's
    config names.
    Raises InputError for a folder without checkpoints, a step that is not there, averages that
    the run does not have, and damaged files.
    """
    return _load(workdir, step, ema, wise_ft, extensions)[0]


def _load(
    workdir: str | Path,
    step: int | str | None,
    ema: bool | None,
    wise_ft: float | None,
    extensions: Extensions,
) -> tuple[Pretrained, int]:
    """Returns the model and the number of its step."""
    # Orbax takes an eighth of a second to import, which `--help` need not wait for.
    from experiments.training.checkpoint import Checkpoints

    enable_compilation_cache()
    workdir = as_path(workdir)
    with Checkpoints(workdir / CHECKPOINTS, read_only=True) as checkpoints:
        step = _find_step(checkpoints, step, extensions)
        config = TrainConfig.from_saved(checkpoints.read_config(step), extensions)
        if ema and not config.optim.ema:
            raise InputError(f"{workdir}: --ema, but config.optim.ema is 0: there are no averages")
        mesh = partitioning.make_mesh(MeshConfig(), jax.devices()[:1])
        if wise_ft is not None:
            init = dataclasses.replace(config.init, wise_ft=wise_ft)
            config = check(dataclasses.replace(config, init=init))
        objective = make_run_objective(config, mesh)
        tokenizer = _tokenizer(checkpoints, workdir, step) if objective.vocabulary else None
        params = _params(checkpoints, step, config, objective, ema is not False)
        with partitioning.mesh_context(mesh, "jit"):
            return as_pretrained(objective, params, tokenizer), step


def _find_step(checkpoints: Checkpoints, step: int | str | None, extensions: Extensions) -> int:
    workdir, known = checkpoints.folder.parent, checkpoints.all_steps()
    if not known:
        raise InputError(f"{workdir}: has no complete checkpoint; expected the workdir of a run")
    if step == "best":
        config = TrainConfig.from_saved(checkpoints.read_config(known[-1]), extensions)
        values = {n: checkpoints.metrics(n).get(config.best_metric) for n in known}
        values = {n: value for n, value in values.items() if value is not None}
        if not values:
            raise InputError(
                f"{workdir}: no checkpoint has a value of config.best_metric "
                f"({config.best_metric!r}); expected --step to be one of "
                f"{', '.join(map(str, known))}"
            )
        # Of equal ones the last, as `config.final_model = "best"` has it.
        sign = 1 if config.best_mode == "highest" else -1
        return max(values, key=lambda number: (sign * values[number], number))
    chosen = known[-1] if step is None else int(step)
    if chosen not in known:
        raise InputError(
            f"{workdir}: has no checkpoint of step {chosen}; expected one of "
            f"{', '.join(map(str, known))}"
        )
    return chosen


def _tokenizer(checkpoints: Checkpoints, workdir: Path, step: int) -> Tokenizer:
    tokenizer = load_tokenizer(workdir / FILE_NAME)
    checkpoints.bind({FILE_NAME: tokenizer.model}, step)
    return tokenizer


def _params(
    checkpoints: Checkpoints, step: int, config: TrainConfig, objective: Objective, ema: bool
) -> Any:
    """Returns the parameters, with averages for the trained ones where `ema` and there are any."""
    abstract = dict(objective.abstract_params)
    state = {"params": checkpoints.restore_params(step, abstract)}
    if ema and config.optim.ema:
        trainable = partition(abstract, trainable_mask(abstract, config.optim))[0]
        state["ema"] = checkpoints.restore_averages(step, trainable)
    return model_params(state)


def _step(text: str) -> int | str:
    if text == "best" or text.isdecimal():
        return text if text == "best" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no step; expected a number or best")


def _parser() -> Parser:
    parser = Parser(prog="python -m experiments.model", description=__doc__)
    parser.add_argument("workdir", help="folder of a run, finished or not")
    parser.add_argument("out", help="model folder to write; must not exist")
    parser.add_argument("--step", type=_step, help="a step or best (default: the newest)")
    parser.add_argument(
        "--ema", action=argparse.BooleanOptionalAction, default=None,
        help="averages of the parameters, or not (default: where the run has them)",
    )  # fmt: skip
    parser.add_argument(
        "--wise-ft", type=float, metavar="W",
        help="weight of the parameters that the run began from (default: config.init.wise_ft)",
    )  # fmt: skip
    parser.add_argument(
        "--config", metavar="FILE", help="experiment file, where it brings own functions"
    )
    return parser


def run(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    if as_path(args.out).exists():
        raise InputError(f"{args.out}: exists already; name a new folder")
    extensions = load_extensions(args.config) if args.config else NO_EXTENSIONS
    with elapsed_lines(f"reading {args.workdir}"):
        model, step = _load(args.workdir, args.step, args.ema, args.wise_ft, extensions)
    with elapsed_lines(f"writing {args.out}"):
        folder = model.save(args.out, source="experiments.model", step=step)
    print(f"model: {folder}")


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(argv), argv)


if __name__ == "__main__":
    sys.exit(main())
