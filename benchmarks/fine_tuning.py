"""Fine-tuning on a few hundred drawings, on held-out ones: python -m benchmarks.fine_tuning

    [--work=runs/fine_tuning] [--images=300] [--seeds=3] [--start-steps=800]

The start model learns the Russian names of emoji as Twemoji draws them. The user's own images are
`--images` OpenMoji drawings with captions, of other emoji than the ones it is then tested on: 367
OpenMoji drawings, whose names are to be found among all 1,914. Each way is fine-tuned with each
seed by experiments/configs/finetune_clip.py, changed as its row says. Everything is resumable: the
same command goes on where it was stopped.
"""

from __future__ import annotations

import csv
import dataclasses
import json
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
from experiments.data.digits_ru import encode_png
from experiments.data.emoji_images import all_emoji
from experiments.data.preparation import prepare
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.shards import WriteConfig
from experiments.demos.pixels import pixel_features, pixel_similarities
from experiments.evaluation.methods.retrieval import rank, retrieve
from experiments.model import load_checkpoint
from experiments.train import train

TEST_FOLDS, OWN_FOLDS = (1, 2), range(4, 10)
VALIDATION = 0.2


def prepare_sets(work: Path, images: int) -> tuple[Path, Path]:
    """Prepares the start model's Twemoji, and OpenMoji as a user's own folder with a table."""
    folds = np.array(emoji_ru.folds())
    known = np.flatnonzero(folds > 0)
    own = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(folds, OWN_FOLDS)))[:images]
    prepared = []
    for name, style, rows, validation in (
        ("twemoji", "twemoji", known, 0.0), (f"own-{images}", "openmoji", own, VALIDATION)
    ):  # fmt: skip
        folder, out = work / "photos" / name, work / "data" / name
        if not (folder / "list.csv").exists():
            folder.mkdir(parents=True, exist_ok=True)
            for i in rows.tolist():
                Image.fromarray(emoji_ru.images(style)[i]).save(folder / f"{i}.png")
            with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
                table = [(f"{i}.png", all_emoji()[i].name) for i in rows.tolist()]
                csv.writer(file).writerows([("image", "caption"), *table])
        prepare(SourceConfig(str(folder)), out, WriteConfig(validation=validation))
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
    named = dataclasses.replace(config.data, name=str(data))
    return dataclasses.replace(config, data=named, seed=seed)


def _from_scratch(config: TrainConfig) -> TrainConfig:
    vocabulary = dataclasses.replace(config.data, vocabulary=config.init.folder)
    optim = dataclasses.replace(config.optim, layer_decay=1.0, learning_rate=1e-3)
    return dataclasses.replace(config, init=InitConfig(), data=vocabulary, optim=optim)


def _optim(**changes: object) -> Callable[[TrainConfig], TrainConfig]:
    return lambda c: dataclasses.replace(c, optim=dataclasses.replace(c.optim, **changes))


WAYS: dict[str, Callable[[TrainConfig], TrainConfig]] = {
    "finetune_clip.py": lambda config: config,
    "all layers at one rate": _optim(layer_decay=1.0),
    "image tower alone": _optim(freeze=("text/.*",)),
    "low-rank updates": _optim(layer_decay=1.0, learning_rate=1e-3, lora=LoraConfig(rank=8)),
    "from scratch": _from_scratch,
}


@dataclasses.dataclass(frozen=True)
class Scores:
    """Shares of held-out drawings whose name is first, or among ten, of all 1,914.

    new: OpenMoji. old: Twemoji of the same emoji, which the start model was trained on.
    """

    new: float
    new_ten: float
    old: float


class Test:
    """The held-out drawings, and what may be compared with them in pixels."""

    def __init__(self) -> None:
        folds = np.array(emoji_ru.folds())
        self.rows = np.flatnonzero(np.isin(folds, TEST_FOLDS))
        self.names = emoji_ru.all_names()
        self.images = {
            style: [encode_png(emoji_ru.images(style)[i]).getvalue() for i in self.rows]
            for style in ("openmoji", "twemoji")
        }

    def score(self, clip: PretrainedClip) -> Scores:
        new, old = (
            retrieve(clip, self.images[style], self.rows.tolist(), self.names)
            for style in ("openmoji", "twemoji")
        )
        return Scores(new.recall(1), new.recall(10), old.recall(1))

    def pixels(self) -> Scores:
        """Scores the name of the most similar Twemoji drawing of all 1,914, test names included."""
        references = pixel_features([encode_png(i).getvalue() for i in emoji_ru.images("twemoji")])
        found = rank(
            pixel_similarities(pixel_features(self.images["openmoji"]), references),
            self.rows.tolist(),
        )
        return Scores(found.recall(1), found.recall(10), 1.0)


def measure(
    work: Path, images: int, seeds: int, start_steps: int, ways: Sequence[str]
) -> Iterator[tuple[str, list[Scores]]]:
    """Yields each row's name and its scores by seed, as soon as they are known."""
    twemoji, own = prepare_sets(work, images)
    test = Test()
    yield "pixels: nearest Twemoji drawing", [test.pixels()]
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
            for weight in (0.0, 0.5):
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
    add("--images", type=int, default=300, metavar="N", help="drawings of the user's own (300)")
    add("--seeds", type=int, default=3, metavar="N", help="of each way (3)")
    add("--start-steps", type=int, default=800, metavar="N", help="of the start model (800)")
    add("--ways", nargs="*", choices=WAYS, default=list(WAYS), help="rows to measure (all)")
    args = parser.parse_args(argv)
    for name, least in (("images", 8), ("seeds", 1), ("start_steps", 1)):
        if getattr(args, name) < least:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is {getattr(args, name)}; expected at least {least}")
    lines = []
    print("| | first of 1,914 names | among ten | Twemoji: first |\n|---|---|---|---|")
    for name, scores in measure(args.work, args.images, args.seeds, args.start_steps, args.ways):
        values = np.array([dataclasses.astuple(score) for score in scores])
        cells = [_mean_and_range(column) for column in values.T]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        lines.append({"way": name, "scores": [dataclasses.asdict(score) for score in scores]})
        (args.work / f"results-{args.images}.json").write_text(json.dumps(lines, indent=1))


def _mean_and_range(values: np.ndarray) -> str:
    mean = f"{100 * values.mean():.1f} %"
    spread = f" ({100 * values.min():.1f} to {100 * values.max():.1f})" if len(values) > 1 else ""
    return mean + spread


if __name__ == "__main__":
    sys.exit(main())
