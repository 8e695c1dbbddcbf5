"""Converting a PyTorch file of RUDOLPH to a model folder, against a copy of the file."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.comparison import Implementation, open_workers
from benchmarks.options import Options
from benchmarks.random_models import original_folder, parameter_count, rudolph_folder
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from benchmarks.worker import run_interleaved
from clip_jax.errors import InputError
from converters.rudolph import PRESETS

BASE = "a copy"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="350M", choices=PRESETS, help="(350M)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """Yield one table. Written files may still be in the page cache when a timed call ends."""
    source = original_folder(rudolph_folder(args.preset, options.work))
    size = (source / "pytorch_model.bin").stat().st_size / 1e6
    modules = {BASE: "copy_convert", "ours": "ours_convert"}
    if options.torch:
        modules["torch.load, safetensors"] = "torch_convert"
    with tempfile.TemporaryDirectory(dir=options.work) as folder, ExitStack() as stack:
        implementations = {
            name: Implementation(module, "float32", {"out": str(Path(folder) / module)})
            for name, module in modules.items()
        }
        workers = open_workers(stack, implementations, options, source=str(source))
        for worker in workers.values():
            worker.call("convert", repeats=1)
        actual = workers["ours"].call("parameter_count").value
        expected = parameter_count(args.preset)
        if actual != expected:
            raise InputError(f"{source}: {actual:,} parameters converted; expected {expected:,}")
        timings = run_interleaved(workers, "convert", dict.fromkeys(workers, 1), options.rounds)
    rows = [
        Row(
            name,
            size / timing.wall_seconds,
            size / timing.cpu_seconds,
            peak_bytes=timing.peak_bytes,
        )
        for name, timing in timings.items()
    ]
    yield Table(f"RUDOLPH {args.preset}, {size:,.0f} MB", "MB", BASE, rows)
