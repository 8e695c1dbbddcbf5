"""A PyTorch file of RUDOLPH to a model folder, beside a copy of the file."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks.contest import Contender, opened
from benchmarks.options import Options
from benchmarks.peer import alternate
from benchmarks.random_models import original_folder, parameters, rudolph_folder
from benchmarks.result import Row, Table
from benchmarks.roofline import Machine
from clip_jax.errors import InputError
from converters.rudolph import PRESETS

BASE = "a copy"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="350M", choices=PRESETS, help="(350M)")


def measure(args: argparse.Namespace, options: Options, machine: Machine) -> Iterator[Table]:
    """One table. What is written may still lie in the system's memory at the end of a turn."""
    source = original_folder(rudolph_folder(args.preset, options.work))
    size = (source / "pytorch_model.bin").stat().st_size / 1e6
    modules = {BASE: "copy_convert", "ours": "ours_convert"}
    if options.torch:
        modules["torch.load, safetensors"] = "torch_convert"
    with tempfile.TemporaryDirectory(dir=options.work) as folder, ExitStack() as stack:
        contenders = {
            name: Contender(module, "float32", {"out": str(Path(folder) / module)})
            for name, module in modules.items()
        }
        peers = opened(stack, contenders, options, source=str(source))
        for peer in peers.values():
            peer.ask("convert", count=1)
        found, expected = peers["ours"].ask("parameters").value, parameters(args.preset)
        if found != expected:
            raise InputError(f"{source}: {found:,} parameters converted; expected {expected:,}")
        timings = alternate(peers, "convert", dict.fromkeys(peers, 1), options.rounds)
    rows = [
        Row(name, size / timing.wall, size / timing.processor, peak=timing.peak)
        for name, timing in timings.items()
    ]
    yield Table(f"RUDOLPH {args.preset}, {size:,.0f} MB", "MB", BASE, rows)
