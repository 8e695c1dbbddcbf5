"""Images a second that one core prepares: python -m benchmarks.input_pipeline [--images 512]

Prints a Markdown table. The images are generated JPEG files of 640x480 pixels, prepared
as any source and read back from the shards.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from clip_jax.cli import Parser
from clip_jax.config import PRESETS, ClipConfig
from clip_jax.errors import InputError
from clip_jax.image import open_image, resize_square
from clip_jax.tokenizer import Tokenizer
from experiments.cli.exit_status import exit_status
from experiments.config.data import DataConfig
from experiments.data.examples import ImageTextExamples
from experiments.data.preparation import prepare
from experiments.data.source import Split, open_split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.stream import batches
from experiments.data.vocabulary import train_tokenizer

SIZE = 640, 480
QUALITY = 90
BATCH_SIZE = 32
REPEATS = 3  # the fastest counts: others use the machine too
PRESET = "ruclip-vit-base-patch32-224"
WORDS = (
    "кот", "дом", "красный", "старый", "на", "под", "дерево", "стоит", "лежит", "большая",
    "река", "у", "окна", "человек", "с", "книгой", "зелёное", "поле", "и", "небо",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rate:
    """Hold the seconds of wall and of CPU time that so many images took."""

    images: int
    wall_seconds: float
    cpu_seconds: float

    def __str__(self) -> str:
        return f"{self.images / self.wall_seconds:.0f} | {self.images / self.cpu_seconds:.0f}"


def measure(images: int, image_size: int, threads: int) -> list[str]:
    """Return the lines of the table."""
    model = PRESETS[PRESET]
    model = dataclasses.replace(
        model, vision=dataclasses.replace(model.vision, image_size=image_size)
    )
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "prepared"
        kilobytes = write_source(source, images)
        prepared = _time(lambda: prepare(SourceConfig(str(source)), out), images)
        config = DataConfig(name=str(out), batch_size=BATCH_SIZE, in_memory=False, threads=threads)
        split = open_split(config, "train")
        tokenizer = train_tokenizer([c for row in split for c in row["captions"]], 400)
        rates: dict[str, list[Rate]] = {}
        for draft in (False, True):
            for name, stage in stages(split, tokenizer, model, draft).items():
                rates.setdefault(name, []).append(_time_each(split, stage))
        for draft in (False, True):
            chosen = dataclasses.replace(config, draft=draft)
            examples = ImageTextExamples(split, chosen, model, tokenizer)
            rates.setdefault(f"whole stream, {threads} threads", []).append(
                _time_stream(examples, chosen, max(images // BATCH_SIZE, 1))
            )
    return [
        f"{images} JPEG files of {SIZE[0]}x{SIZE[1]} pixels, {kilobytes:.0f} KiB each, to "
        f"{image_size} pixels",
        "",
        "| stage | images/s | a core | with draft | a core |",
        "|---|---|---|---|---|",
        f"| prepare, one process | {prepared} | | |",
        *(f"| {name} | {full} | {draft} |" for name, (full, draft) in rates.items()),
    ]


def stages(
    split: Split, tokenizer: Tokenizer, model: ClipConfig, draft: bool
) -> dict[str, Callable[[int], object]]:
    """Return what is timed, each including the one before it: functions of an image's index."""
    size = model.vision.image_size

    def decode(i: int) -> Image.Image:
        data = split[i]["image"]
        return open_image(data, draft_side=size if draft else None)

    def resize(i: int) -> np.ndarray:
        return resize_square(decode(i), size, model.image)

    def tokenize(i: int) -> np.ndarray:
        resize(i)
        return tokenizer.encode_batch(split[i]["captions"], model.text.context_length)

    return {
        "decode": decode,
        "decode, resize": resize,
        "decode, resize, tokenise": tokenize,
    }


def _time_each(split: Split, stage: Callable[[int], object]) -> Rate:
    def work() -> None:
        for i in range(len(split)):
            stage(i)

    return _fastest(work, len(split))


def _time_stream(examples: ImageTextExamples, config: DataConfig, count: int) -> Rate:
    stream = batches(examples, config, seed=0)
    next(stream)
    rate = _fastest(lambda: [next(stream) for _ in range(count)], count * config.batch_size)
    stream.close()
    return rate


def _fastest(work: Callable[[], object], images: int) -> Rate:
    return min((_time(work, images) for _ in range(REPEATS)), key=lambda rate: rate.wall_seconds)


def _time(work: Callable[[], object], images: int) -> Rate:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Rate(images, time.perf_counter() - wall, time.process_time() - cpu)


def write_source(folder: Path, images: int) -> float:
    """Write captioned JPEG files and return their mean KiB.

    Smooth shapes under fine noise make files as large as photographs.
    """
    folder.mkdir()
    rng = np.random.default_rng(0)
    size = 0
    with (folder / "list.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for i in range(images):
            coarse = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
            smooth = Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC)
            noise = rng.normal(0, 6, (SIZE[1], SIZE[0], 1))
            pixels = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY)
            (folder / f"{i}.jpg").write_bytes(buffer.getvalue())
            size += buffer.tell()
            table.writerow([f"{i}.jpg", " ".join(rng.choice(WORDS, 10))])
    return size / images / 1024


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="python -m benchmarks.input_pipeline", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument("--images", type=int, default=512, metavar="N", help="(512)")
    parser.add_argument("--image-size", type=int, default=224, metavar="PIXELS", help="(224)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N",
                        help="of the stream (all cores)")  # fmt: skip
    args = parser.parse_args(argv)
    for name in ("images", "image_size", "threads"):
        if getattr(args, name) < 1:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least 1"
            )
    print("\n".join(measure(args.images, args.image_size, args.threads)))


if __name__ == "__main__":
    sys.exit(main())
