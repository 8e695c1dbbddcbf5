"""Fine-tuning on a few hundred images of another kind: python -m benchmarks.fine_tuning

    [--work=runs/fine_tuning] [--images=300] [--seeds=3] [--start-steps=800]

The start model learns the Russian names of emoji as Twemoji draws them. The user's own images are
`--images` handwritten digits with captions, a fifth of them for validation; all are tested on the
split "test" of the digits, by Russian prompts. Each way is fine-tuned with each seed by
experiments/configs/finetune_clip.py, changed as its row says. The same command resumes where it was
stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clip_jax import InputError, PretrainedClip, load
from clip_jax.cli import Parser, run_cli
from experiments.config.optimizer import LoraConfig
from experiments.config.run import InitConfig, TrainConfig
from experiments.configs import emoji, finetune_clip
from experiments.data import emoji_ru
from experiments.data.digits_ru import NAMES, TEMPLATES, digits, encode_png, split_of
from experiments.data.emoji_images import all_emoji
from experiments.data.preparation import prepare
from experiments.data.source import Split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.demos.pixels import nearest_labels, pixel_features
from experiments.evaluation.methods.retrieval import retrieve
from experiments.evaluation.methods.zero_shot import zero_shot
from experiments.model import load_checkpoint
from experiments.train import train

VALIDATION = 0.2
KNOWN_EMOJI = 400  # on which forgetting is measured


def prepare_sets(work: Path, images: int) -> tuple[Path, Path]:
    """Prepare the start model's Twemoji, and digits as a user's own folder with a table."""
    known = np.flatnonzero(np.array(emoji_ru.folds()) > 0)
    pixels, labels = digits()
    train = [i for i in range(len(pixels)) if split_of(pixels[i]) == "train"]
    rng = np.random.default_rng(0)
    own = rng.permutation(train)[:images]
    forms = rng.integers(0, len(TEMPLATES), images)
    sets = {
        "twemoji": [(emoji_ru.images("twemoji")[i], all_emoji()[i].name) for i in known],
        f"own-{images}": [
            (pixels[i], TEMPLATES[form].format(NAMES[labels[i]]))
            for i, form in zip(own, forms, strict=True)
        ],
    }
    prepared = []
    for name, pairs in sets.items():
        folder, out = work / "photos" / name, work / "data" / name
        if not (folder / "list.csv").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for number, (image, _) in enumerate(pairs):
                Image.fromarray(image).save(folder / f"{number}.png")
            with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
                table = [(f"{n}.png", caption) for n, (_, caption) in enumerate(pairs)]
                csv.writer(file).writerows([("image", "caption"), *table])
        share = VALIDATION if name != "twemoji" else 0.0
        prepare(SourceConfig(str(folder)), out, WriteConfig(validation=share))
        prepared.append(out)
    return prepared[0], prepared[1]


def start_config(data: Path, steps: int) -> TrainConfig:
    """Returns the emoji demonstration's config for one style and so many steps."""
    config = emoji.train_config()
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, name=str(data), group_by="", batch_size=128,
            augment=dataclasses.replace(config.data.augment, variants=6),
        ),
        steps=steps, evaluate_every=0, evaluators=(),
    )  # fmt: skip


def tuned_config(model: Path, data: Path, seed: int) -> TrainConfig:
    config = finetune_clip.train_config(str(model))
    # Digits are light on black.
    augment = dataclasses.replace(config.data.augment, background=0)
    named = dataclasses.replace(config.data, name=str(data), augment=augment)
    # Ten times the recipe's: a model of a million parameters takes larger steps.
    optim = dataclasses.replace(config.optim, learning_rate=1e-3)
    return dataclasses.replace(config, data=named, optim=optim, seed=seed)


def _from_scratch(config: TrainConfig) -> TrainConfig:
    vocabulary = dataclasses.replace(config.data, vocabulary=config.init.folder)
    optim = dataclasses.replace(config.optim, layer_decay=1.0)
    return dataclasses.replace(config, init=InitConfig(), data=vocabulary, optim=optim)


def _optim(**changes: object) -> Callable[[TrainConfig], TrainConfig]:
    return lambda c: dataclasses.replace(c, optim=dataclasses.replace(c.optim, **changes))


WAYS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "finetune_clip.py": lambda config: config,
    "all layers at one rate": _optim(layer_decay=1.0),
    "image tower alone": _optim(freeze=("text/.*",)),
    "low-rank updates": _optim(layer_decay=1.0, lora=LoraConfig(rank=8)),
    "from scratch": _from_scratch,
}


@dataclasses.dataclass(frozen=True)
class Scores:
    """Accuracies: of held-out digits, by prompts; and of the start model's emoji, by their names.

    emoji: how many of 400 that it learned have their name first among all 1,914; NaN: not measured.
    """

    digits: float
    emoji: float = math.nan


class Test:
    """The held-out digits, and emoji that the start model learned."""

    def __init__(self) -> None:
        pixels, labels = digits()
        held_out = [i for i in range(len(pixels)) if split_of(pixels[i]) == "test"]
        self.labels = labels[held_out].tolist()
        self.images = [encode_png(pixels[i]).getvalue() for i in held_out]
        self.rows = np.flatnonzero(np.array(emoji_ru.folds()) > 0)[:KNOWN_EMOJI].tolist()
        self.emoji = [encode_png(emoji_ru.images("twemoji")[i]).getvalue() for i in self.rows]

    def score(self, clip: PretrainedClip) -> Scores:
        found = zero_shot(clip, self.images, self.labels, NAMES, TEMPLATES)
        known = retrieve(clip, self.emoji, self.rows, emoji_ru.all_names())
        return Scores(found.accuracy, known.recall(1))

    def pixels(self, own: Path) -> Scores:
        """Score the label of the most similar image of the training split, which has captions."""
        rows = list(Split(own, "train"))
        known = [NAMES.index((set(row["captions"][0].split()) & set(NAMES)).pop()) for row in rows]
        size = digits()[0].shape[1]
        nearest = nearest_labels(
            pixel_features(self.images, size),
            pixel_features([row["image"] for row in rows], size), known,
        )  # fmt: skip
        return Scores(float(np.mean(nearest == np.array(self.labels))))


def measure(
    work: Path, images: int, seeds: int, start_steps: int, ways: Sequence[str]
) -> Iterator[tuple[str, list[Scores]]]:
    """Yields each row's name and its scores by seed, as soon as they are known."""
    twemoji, own = prepare_sets(work, images)
    test = Test()
    yield "pixels: nearest image of the own ones", [test.pixels(own)]
    start = train(start_config(twemoji, start_steps), work / "start").model_folder
    yield "start model", [test.score(load(start))]
    for way in ways:
        scores = []
        for seed in range(seeds):
            workdir = work / "runs" / f"{way.replace(' ', '-')}-{images}-{seed}"
            train(WAYS[way](tuned_config(start, own, seed)), workdir)
            scores.append(test.score(load(workdir / "model")))
        yield way, scores
        if way == "finetune_clip.py":
            for weight in (0.3, 0.5):
                models = [
                    load_checkpoint(work / "runs" / f"{way}-{images}-{seed}", "best", None, weight)
                    for seed in range(seeds)
                ]
                yield f"{way}, wise_ft={weight:g}", [test.score(model) for model in models]


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks.fine_tuning", description=__doc__)
    add = parser.add_argument
    add("--work", type=Path, default=Path("runs/fine_tuning"), metavar="DIR",
        help="folder of all that is made (runs/fine_tuning)")
    add("--images", type=int, default=300, metavar="N", help="images of the user's own (300)")
    add("--seeds", type=int, default=3, metavar="N", help="of each way (3)")
    add("--start-steps", type=int, default=800, metavar="N", help="of the start model (800)")
    add("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="rows to measure (all)")
    args = parser.parse_args(argv)
    for name, least in (("images", 8), ("seeds", 1), ("start_steps", 1)):
        if getattr(args, name) < least:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is {getattr(args, name)}; expected at least {least}")
    lines = []
    print("| | held-out digits | emoji that the start model learned |\n|---|---|---|")
    for name, scores in measure(args.work, args.images, args.seeds, args.start_steps, args.ways):
        values = np.array([dataclasses.astuple(score) for score in scores])
        cells = [_mean_and_range(column) for column in values.T]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        lines.append({"way": name, "scores": [dataclasses.asdict(score) for score in scores]})
        (args.work / f"results-{args.images}.json").write_text(json.dumps(lines, indent=1))


def _mean_and_range(values: np.ndarray) -> str:
    if np.isnan(values).all():
        return ""
    mean = f"{100 * values.mean():.1f} %"
    spread = f" ({100 * values.min():.1f} to {100 * values.max():.1f})" if len(values) > 1 else ""
    return mean + spread


if __name__ == "__main__":
    sys.exit(main())
