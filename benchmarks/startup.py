"""What a user waits for who has just begun: imports, programs, the first result."""

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
from benchmarks.peer import Peer
from benchmarks.random_models import clip_folder, rudolph_folder
from benchmarks.result import Series
from benchmarks.roofline import Machine
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
    """Medians over fresh processes, which take turns."""
    yield Series(
        "Import in a fresh process, Python's own start included", "package", "seconds", IMPORTED,
        {"seconds": imports(IMPORTED, options.rounds)},
    )  # fmt: skip
    asked = [
        (args.preset, "draw", rudolph_folder(args.preset, options.work)),
        (args.clip_preset, "embed", clip_folder(args.clip_preset, options.work)),
    ]
    cold, warm = [], []
    for _ in range(options.rounds):
        # Programs that a process keeps are found by the one after it.
        with tempfile.TemporaryDirectory(prefix="programs-") as home:
            cold.append(firsts(asked, home))
            warm.append(firsts(asked, home))
    yield Series(
        "Until the first result, imports counted and weights not", "result", "seconds",
        tuple(cold[0]),
        {
            "no programs kept": [median(found[what] for found in cold) for what in cold[0]],
            "programs kept": [median(found[what] for found in warm) for what in cold[0]],
        },
    )  # fmt: skip


def imports(packages: tuple[str, ...], rounds: int) -> list[float]:
    """Median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in packages}
    for _ in range(rounds):
        for name in packages:
            begun = perf_counter()
            subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
            times[name].append(perf_counter() - begun)
    return [median(found) for found in times.values()]


def firsts(asked: list[tuple[str, str, Path]], home: str) -> dict[str, float]:
    """Seconds until each first result. home: of kept programs."""
    found = {}
    for name, task, folder in asked:
        variables = {
            "JAX_COMPILATION_CACHE_DIR": home,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",  # `clip_jax.compilation_cache`
        }
        with Peer("ours_start", variables=variables) as peer:
            value = peer.ask(task, folder=str(folder)).value
        found |= {f"{name}, {what}": seconds for what, seconds in value.items()}
    return found
