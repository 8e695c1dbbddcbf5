"""Decoding JPEG files into model inputs on one core, against Pillow alone."""

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
from benchmarks.options import Options, positive_ints
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
    parser.add_argument("--images", type=positive_ints, default=(256,), help="in a data set (256)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """Yield a table for each number of images. Each implementation decodes all in a round."""
    for count in args.images:
        with tempfile.TemporaryDirectory() as folder:
            functions = _functions(Path(folder), count)
            rows = [Row(name, *rates) for name, rates in _rates(functions, count, options.rounds)]
        yield Table(f"{count} JPEG files of 640x480 pixels, one thread", "images", BASE, rows)


def _functions(folder: Path, count: int) -> dict[str, Callable[[int], object]]:
    """Prepare a data set in the folder. Return what is timed: functions of an image's index."""
    write_source(folder / "source", count)
    prepare(SourceConfig(str(folder / "source")), folder / "prepared")
    config = DataConfig(name=str(folder / "prepared"), batch_size=1, in_memory=False)
    split, model = open_split(config, "train"), PRESETS[PRESET]
    tokenizer = train_tokenizer([caption for row in split for caption in row["captions"]], 400)
    functions: dict[str, Callable[[int], object]] = {
        BASE: lambda i: pillow_decode(split[i]["image"], model.vision.image_size)
    }
    for draft in (False, True):
        suffix = " of a JPEG draft" if draft else ""
        for name, stage in stages(split, tokenizer, model, draft).items():
            functions[f"ours, {name}{suffix}"] = stage
    return functions


def pillow_decode(data: bytes, size: int) -> np.ndarray:
    """Return uint8[size, size, 3] as a user of Pillow would code it."""
    with Image.open(io.BytesIO(data)) as file:
        image = file.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))


def _rates(
    functions: dict[str, Callable[[int], object]], count: int, rounds: int
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Yield images a second of wall and of CPU time: medians of interleaved rounds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            wall, cpu = perf_counter(), process_time()
            for i in range(count):
                function(i)
            times[name].append((perf_counter() - wall, process_time() - cpu))
    for name, found in times.items():
        wall_times, cpu_times = zip(*found, strict=True)
        yield name, (count / median(wall_times), count / median(cpu_times))
