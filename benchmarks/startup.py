"""Start-up time: imports, compilation, the first result."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks.options import Options
from benchmarks.random_models import clip_folder, rudolph_folder
from benchmarks.result import Series
from benchmarks.roofline import Machine
from benchmarks.worker import Worker
from clip_jax.config import PRESETS as CLIP_PRESETS
from rudolph_jax.config import PRESETS

IMPORTED = ("jax", "clip_jax", "rudolph_jax", "converters", "experiments.train")
CLIP = "ruclip-vit-base-patch32-224"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="350M", choices=tuple(PRESETS), help="(350M)")
    parser.add_argument(
        "--clip-preset", default=CLIP, choices=tuple(CLIP_PRESETS), help=f"({CLIP})"
    )


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Series]:
    """Yield medians over fresh processes, in interleaved rounds."""
    yield Series(
        "Import in a fresh process, Python's own start included", "package", "seconds", IMPORTED,
        {"seconds": import_times(IMPORTED, options.rounds)},
    )  # fmt: skip
    tasks = [
        (args.preset, "generate", rudolph_folder(args.preset, options.work)),
        (args.clip_preset, "encode", clip_folder(args.clip_preset, options.work)),
    ]
    cold, warm = [], []
    for _ in range(options.rounds):
        # The second process finds the programs that the first one compiled.
        with tempfile.TemporaryDirectory(prefix="compilation-cache-") as cache:
            cold.append(time_to_first_result(tasks, cache))
            warm.append(time_to_first_result(tasks, cache))
    yield Series(
        "Until the first result, imports counted and weights not", "result", "seconds",
        tuple(cold[0]),
        {
            "empty compilation cache": [median(t[result] for t in cold) for result in cold[0]],
            "warm compilation cache": [median(t[result] for t in warm) for result in cold[0]],
        },
    )  # fmt: skip


def import_times(packages: tuple[str, ...], rounds: int) -> list[float]:
    """Return the median seconds of importing each."""
    times: dict[str, list[float]] = {name: [] for name in packages}
    for _ in range(rounds):
        for name in packages:
            start = perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            times[name].append(perf_counter() - start)
    return [median(seconds) for seconds in times.values()]


def time_to_first_result(tasks: list[tuple[str, str, Path]], cache: str) -> dict[str, float]:
    """Return seconds until each first result.

    tasks: (preset, task of `workers.ours_start`, model folder).
    cache: folder of the compilation cache.
    """
    times = {}
    for name, task, folder in tasks:
        environment = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",  # `clip_jax.compilation_cache`
        }
        with Worker("ours_start", environment=environment) as worker:
            value = worker.call(task, folder=str(folder)).value
        times |= {f"{name}, {result}": seconds for result, seconds in value.items()}
    return times
