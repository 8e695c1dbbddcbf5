"""evaluate linear-probe: logistic regression on features of 1, 2, 4, 8, 16 and all images."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import jax
import numpy as np
from tqdm import tqdm

from clip_jax.errors import InputError
from experiments.data.sources.labels import MissingSplit
from experiments.evaluation.clip_model import ClipModel
from experiments.evaluation.image_features import FEATURES
from experiments.evaluation.methods.few_shot import (
    VALIDATION_SHOTS,
    classes_without,
    pools,
    shot_counts,
)
from experiments.evaluation.methods.linear_probe import Features, ProbeResult, ProbeTask, probe
from experiments.evaluation.metrics import classification
from experiments.evaluation.remarks import shots_found
from experiments.evaluation.run import EvalRun, Result, set_record, set_title
from experiments.evaluation.sets import LabelledSet, open_set
from experiments.evaluation.tasks import options
from experiments.evaluation.unreadable import listed

ABOUT, NAME = "fit a linear classifier on few and on all images", "linear-probe"
ALL = "all"
SHOTS, DRAWS = f"1,2,4,8,16,{ALL}", 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)
    options.add_sets(parser)
    add_probe(parser)


def add_probe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--features", choices=FEATURES, default="pre",
        help="before the projection, as CLIP's probes, or after it, of unit length (pre)")
    add("--shots", default=SHOTS, metavar="N,...", help=f"images a class ({SHOTS})")
    add("--draws", type=int, default=DRAWS, metavar="N", help=f"of each number ({DRAWS})")
    add("--seed", type=int, default=0, help="of the draws (0)")  # fmt: skip


def run(args: argparse.Namespace) -> None:
    def lines(_: str, result: Result) -> Iterator[str]:
        for row in result["shots"]:
            spread = f" ± {row['deviation']:.4f}" if row["draws"] > 1 else ""
            yield (
                f"{result['title']}, images a class {shots_found(row)}: "
                f"{result['metric']} {row['mean']:.4f}{spread}"
            )

    options.measure_sets(
        options.clip_runs(args),
        args,
        lambda run, name: measure_set(run, name, args),
        lines,
        folder_name(args.features),
        "results, lists of the drawn",
    )


def shot_numbers(args: argparse.Namespace) -> list[int | None]:
    """None stands for all images."""
    found: list[int | None] = []
    for text in filter(None, args.shots.split(",")):
        if text != ALL and not (text.isdecimal() and int(text)):
            raise InputError(f"--shots has {text!r}; expected positive numbers or {ALL!r}")
        found.append(None if text == ALL else int(text))
    if not found or args.draws < 1:
        raise InputError(f"--shots={args.shots} --draws={args.draws}; expected one of each")
    return found


def measure_set(run: EvalRun[ClipModel], name: str, args: argparse.Namespace) -> Result:
    """The metric for each number of shots, with mean, spread and what was drawn."""
    numbers = shot_numbers(args)
    train, test = _open(run, name, "train"), _open(run, name, args.test_split)
    validation = _validation(run, name)
    # Before anything is encoded: splits that share images are an error.
    learned, chosen = pools(train, validation, test, args.seed)
    metric = set_record(name).metric
    inputs = {
        **run.metadata(test),
        "title": set_title(test.name),
        "train": {"split": train.split, "source_sha256": train.source_hash},
        "validation": validation
        and {"split": validation.split, "source_sha256": validation.source_hash},
        "features": args.features,
        "metric": metric,
        "seed": args.seed,
        "asked_shots": [number or ALL for number in numbers],
        "asked_draws": args.draws,
    }

    splits = [images for images in (train, validation, test) if images is not None]
    own, names = (validation or train).split, test.class_names

    def compute() -> Result:
        images = {p.split: run.model.set_features(p, args.features) for p in splits}
        found = {p.split: Features(images[p.split].values, p.labels) for p in splits}
        readable = found[test.split].at(images[test.split].readable)
        task = ProbeTask(
            found[train.split], found[own], readable,
            learned.without(images[train.split].unreadable),
            chosen.without(images[own].unreadable),
            metric, len(names), jax.local_devices(),
        )  # fmt: skip
        counts = {
            "training": task.learned.counts(len(names)),
            "validation": task.chosen.counts(len(names)),
            "test": np.bincount(readable.labels, minlength=len(names)),
        }
        if not (counts["training"] * counts["test"]).any():
            raise InputError(
                f"{test.name}: no class of split {test.split!r} has images in {train.split!r}; "
                "expected the same classes in both"
            )
        plan = [
            (number, draw)
            for number in numbers
            for draw in range(args.draws if number else 1)
        ]
        bar = tqdm(plan, f"probes of {test.name}", unit=" fits", disable=None, leave=False)
        draws: dict[int | None, list[ProbeResult]] = {number: [] for number in numbers}
        for number, draw in bar:
            draws[number].append(probe(task, number, args.seed, draw))
        return {
            "examples": len(readable.labels),
            "images": sum(map(len, splits)),
            "unreadable": [
                row for p in splits for row in listed(p, images[p.split].unreadable)
            ],
            **{f"classes_without_{part}": classes_without(counts[part], names) for part in counts},
            "shots": [
                {**_shot_result(number, draws[number], task), **_found(number, counts, names)}
                for number in numbers
            ],
        }

    return run.cached_result(folder_name(args.features), test.name, inputs, splits, compute)


def _found(
    number: int | None, counts: dict[str, np.ndarray], names: tuple[str, ...]
) -> Result:
    """Count the images a class that there really were, for training and for the penalty."""
    occurring = (counts["training"] + counts["test"]) > 0
    most = number and min(number, VALIDATION_SHOTS)
    return {
        "found": shot_counts(counts["training"], number, names, occurring),
        "validation_shots": most or ALL,
        "validation_found": shot_counts(counts["validation"], most, names, occurring),
    }


def folder_name(features: str) -> str:
    return f"{NAME}-{features}"


def _open(run: EvalRun[ClipModel], name: str, split: str) -> LabelledSet:
    return open_set(name, split, run.data_dir)


def _validation(run: EvalRun[ClipModel], name: str) -> LabelledSet | None:
    """None where the set has no such split."""
    try:
        return _open(run, name, "validation")
    except MissingSplit:
        return None


def _shot_result(number: int | None, draws: list[ProbeResult], task: ProbeTask) -> Result:
    mean, deviation = classification.spread([draw.value for draw in draws])
    found = {"shots": number or ALL, "draws": len(draws), "mean": mean, "deviation": deviation}
    tests = {row.tobytes() for row in task.test.values}
    found["runs"] = [
        {
            "value": draw.value,
            "log10_C": round(math.log10(draw.C), 3),
            "learned": len(draw.train),
            # Copies under other keys, found by features that are the same to the last bit.
            "same_pixels_in_test": _also_in(task.train.values[draw.train], tests),
            **(_keys(draw, task) if number else {}),
        }
        for draw in draws
    ]
    return found


def _keys(draw: ProbeResult, task: ProbeTask) -> Result:
    return {
        "train": task.learned.keys_of(draw.train),
        "validation": task.chosen.keys_of(draw.validation),
    }


def _also_in(features: np.ndarray, others: set[bytes]) -> int:
    return sum(row.tobytes() in others for row in features)
