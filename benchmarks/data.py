"""JPEG files to images that a model takes, on one core, beside Pillow's own decoding alone."""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import numpy as np
from PIL import Image

from benchmarks.input_pipeline import PRESET, stages, write_source
from benchmarks.options import Options, numbers
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from clip_jax.config import PRESETS
from experiments.config.data import DataConfig
from experiments.data.preparation import prepare
from experiments.data.source import open_split
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.vocabulary import train_tokenizer

BASE = "Pillow's decode and resize"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pictures", type=numbers, default=(256,), help="in a set (256)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """A table for each number of pictures. Each contender takes all of them in its turn."""
    for pictures in args.pictures:
        with tempfile.TemporaryDirectory() as folder:
            works = _works(Path(folder), pictures)
            rows = [Row(name, *rates) for name, rates in _rates(works, pictures, options.rounds)]
        yield Table(f"{pictures} JPEG files of 640x480 pixels, one thread", "pictures", BASE, rows)


def _works(folder: Path, pictures: int) -> dict[str, Callable[[int], object]]:
    """What is done with a picture of a set that is made in the folder, by its number."""
    write_source(folder / "source", pictures)
    prepare(SourceConfig(str(folder / "source")), folder / "prepared")
    config = DataConfig(name=str(folder / "prepared"), batch_size=1, in_memory=False)
    split, model = open_split(config, "train"), PRESETS[PRESET]
    tokenizer = train_tokenizer([caption for row in split for caption in row["captions"]], 400)
    works: dict[str, Callable[[int], object]] = {
        BASE: lambda i: plain(split[i]["image"], model.vision.image_size)
    }
    for draft in (False, True):
        how = " of a JPEG draft" if draft else ""
        for name, work in stages(split, tokenizer, model, draft).items():
            works[f"ours, {name}{how}"] = work
    return works


def plain(data: bytes, size: int) -> np.ndarray:
    """uint8[size, size, 3] as a user of Pillow would write it."""
    with Image.open(io.BytesIO(data)) as file:
        picture = file.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box))


def _rates(
    works: dict[str, Callable[[int], object]], pictures: int, rounds: int
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Pictures a second by the clock and by processor time: medians of rounds that take turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            wall, processor = perf_counter(), process_time()
            for i in range(pictures):
                work(i)
            times[name].append((perf_counter() - wall, process_time() - processor))
    for name, found in times.items():
        walls, processors = zip(*found, strict=True)
        yield name, (pictures / median(walls), pictures / median(processors))
