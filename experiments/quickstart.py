"""The main job in minutes on a laptop: python -m experiments.quickstart [--data digits|emoji]

Trains a tiny ruCLIP, a tiny image tokenizer and a tiny RUDOLPH from scratch on real images with
Russian captions, measures them on held-out ones beside plain baselines, and draws a page:
runs/quickstart/report.html. An interrupted run is resumed by the same command.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from clip_jax.command import Parser
from experiments.cli.exit_status import exit_status
from experiments.config.run import TrainConfig
from experiments.configs import (
    digits,
    digits_rudolph,
    digits_vqgan,
    emoji,
    emoji_rudolph,
    emoji_vqgan,
)
from experiments.demos import digits_drawing, digits_naming, emoji_drawing, emoji_naming
from experiments.demos.outcome import Outcome
from experiments.evaluation.report.page import write_page
from experiments.train import Run, train


@dataclasses.dataclass(frozen=True)
class Demo:
    """recipes: a run's name, also its folder's, -> its config, in the order of training.

    naming: measures ruCLIP. drawing: measures RUDOLPH.
    """

    title: str
    recipes: Mapping[str, Callable[[], TrainConfig]]
    naming: ModuleType
    drawing: ModuleType


DEMOS = {
    "digits": Demo(
        "Two tiny models read and draw handwritten digits in Russian",
        {
            "ruclip": digits.train_config,
            "vqgan": digits_vqgan.train_config,
            "rudolph": digits_rudolph.train_config,
        },
        digits_naming,
        digits_drawing,
    ),
    "emoji": Demo(
        "Two tiny models name and draw emoji in Russian",
        {
            "ruclip": emoji.train_config,
            "vqgan": emoji_vqgan.train_config,
            "rudolph": emoji_rudolph.train_config,
        },
        emoji_naming,
        emoji_drawing,
    ),
}


def run(data: str, workdir: Path, steps: int | None = None, seed: int = 0) -> list[Outcome]:
    """Trains, evaluates and writes the page. steps: of each run, instead of the recipe's number."""
    start, demo = time.monotonic(), DEMOS[data]
    configs: dict[str, TrainConfig] = {}
    runs: dict[str, Run] = {}
    for name, recipe in demo.recipes.items():
        config = dataclasses.replace(recipe(), seed=seed)
        if steps is not None:
            config = dataclasses.replace(config, steps=steps)
        if name == "rudolph":
            settings = dataclasses.replace(config.settings, vqgan=str(runs["vqgan"].model_folder))
            config = dataclasses.replace(config, settings=settings)
        print(f"training {name} on {config.data.name}, {config.steps} steps", flush=True)
        configs[name], runs[name] = config, train(config, workdir / name)
    print("evaluating on held-out pictures", flush=True)
    clip, rudolph = runs["ruclip"].model, runs["rudolph"].model
    outcomes = [
        demo.naming.evaluate(clip, configs["ruclip"], workdir / "ruclip"),
        demo.drawing.evaluate(rudolph, clip, configs["rudolph"], workdir / "rudolph"),
    ]
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    steps_of = ", ".join(f"{name} {config.steps} steps" for name, config in configs.items())
    lead = (
        f"Trained from scratch with seed {seed}: {steps_of}; this run took {minutes} min "
        f"{seconds} s in all. The models lie in {workdir}/*/model."
    )
    sections = [section for outcome in outcomes for section in outcome.sections]
    page = write_page(workdir, demo.title, lead, sections)
    for outcome in outcomes:
        print(outcome.summary())
    print(f"models: {' '.join(str(run.model_folder) for run in runs.values())}\nreport: {page}")
    return outcomes


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m experiments.quickstart", description=__doc__)
    parser.add_argument("--data", choices=sorted(DEMOS), default="digits")
    parser.add_argument("--workdir", type=Path, help="default: runs/quickstart, or -emoji")
    parser.add_argument("--steps", type=int, help="train each for so many steps instead")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    suffix = "" if args.data == "digits" else f"-{args.data}"
    workdir = args.workdir or Path(f"runs/quickstart{suffix}")
    run(args.data, workdir, args.steps, args.seed)


if __name__ == "__main__":
    sys.exit(main())
