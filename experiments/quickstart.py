"""The main job in minutes on a laptop: python -m experiments.quickstart [--data digits|emoji]

Trains a tiny ruCLIP from scratch on real pictures with Russian captions, measures it on held-out
ones beside plain baselines, and draws a page: runs/quickstart/report.html. An interrupted run is
resumed by the same command.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from pathlib import Path

from experiments.command import exit_status
from experiments.configs import digits, emoji
from experiments.demos import digits_demo, emoji_demo
from experiments.demos.outcome import Outcome
from experiments.evaluation.page import write_page
from experiments.train import train

DEMOS = {"digits": (digits.train_config, digits_demo), "emoji": (emoji.train_config, emoji_demo)}


def run(data: str, workdir: Path, steps: int | None = None, seed: int = 0) -> Outcome:
    """Trains, evaluates and writes the page. steps: instead of the recipe's number."""
    start = time.monotonic()
    make_config, demo = DEMOS[data]
    config = dataclasses.replace(make_config(), seed=seed)
    if steps is not None:
        config = dataclasses.replace(config, steps=steps)
    print(f"training a tiny ruCLIP on {config.data.name}, {config.steps} steps", flush=True)
    trained = train(config, workdir)
    print("evaluating on held-out pictures", flush=True)
    outcome = demo.evaluate(trained.clip, config, workdir)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    lead = (
        f"{outcome.lead} Trained from scratch with seed {seed}, {config.steps} steps of "
        f"{config.data.batch_size} pairs; this run took {minutes} min {seconds} s in all. "
        f"The model: {trained.model_folder}."
    )
    page = write_page(workdir, outcome.title, lead, outcome.sections)
    print(outcome.summary())
    print(f"model:  {trained.model_folder}\nreport: {page}")
    return outcome


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.quickstart", description=__doc__)
    parser.add_argument("--data", choices=sorted(DEMOS), default="digits")
    parser.add_argument("--workdir", type=Path, help="default: runs/quickstart, or -emoji")
    parser.add_argument("--steps", type=int, help="train for so many steps instead")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    suffix = "" if args.data == "digits" else f"-{args.data}"
    workdir = args.workdir or Path(f"runs/quickstart{suffix}")
    return exit_status(lambda: run(args.data, workdir, args.steps, args.seed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
