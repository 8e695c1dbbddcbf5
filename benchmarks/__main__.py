"""Compare speed and memory: python -m benchmarks NAME|all [--out=FILE.json]

python -m benchmarks accelerator --help: programs compiled for TPU slices.
python -m benchmarks gpu --help: all that matters on a GPU, in the minutes that there are.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks import roofline
from benchmarks.options import Options, comma_separated
from benchmarks.random_models import DEFAULT_FOLDER
from benchmarks.result import write_json
from clip_jax.cli import Parser, run_cli
from clip_jax.errors import InputError

BENCHMARKS = ("decode", "encode", "train", "loss", "convert", "data", "startup", "scaling")
ORIGINAL = Path(__file__).parent.parent / ".venv-original/bin/python"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status (`clip_jax.cli`)."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["accelerator"]:  # compiles for others' machines and times nothing here
        from benchmarks import accelerator

        return accelerator.main(argv[1:])
    if argv[:1] == ["gpu"]:  # has a deadline in place of rounds
        from benchmarks import gpu

        return gpu.main(argv[1:])
    return run_cli(lambda: _run(make_parser().parse_args(argv)), argv)


def _run(args: argparse.Namespace) -> None:
    if args.rounds < 1:
        raise InputError(f"--rounds is {args.rounds}; expected at least 1")
    options = _options(args)
    for name, present in (("PyTorch", options.torch), ("the original", options.original_python)):
        if not present:
            print(f"{name} is left out (docs/performance.md says how to install it)")
    machine = roofline.measure()
    print(f"{machine.device}, {os.cpu_count()} cores: ", end="")
    print(", ".join(f"{rate / 1e9:,.0f} GFLOP/s {dtype}" for dtype, rate in machine.flops.items()))
    print(f"reads {machine.read / 1e9:.1f} GB/s, copies {machine.copy / 1e9:.1f} GB/s")
    results: dict[str, Any] = {
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "numpy")},
        "python": platform.python_version(),
        "machine": dataclasses.asdict(machine),
    }
    for name in BENCHMARKS if args.benchmark == "all" else (args.benchmark,):
        module = importlib.import_module(f"benchmarks.{name}")
        start = time.monotonic()
        tables = results[name] = []
        for table in module.measure(args_for(name, args), options, machine):
            print("", *table.lines(), sep="\n", flush=True)
            tables.append(table.to_json())
            write_json(args.out, results)
        print(f"\n{name}: {time.monotonic() - start:.0f} s", flush=True)
    print(f"written to {args.out}")


def _options(args: argparse.Namespace) -> Options:
    unknown = set(args.without) - {"torch", "original"}
    if unknown:
        raise InputError(f"--without: {unknown.pop()!r} is unknown; expected torch, original")
    python = args.original_python or (ORIGINAL if ORIGINAL.exists() else None)
    return Options(
        rounds=args.rounds,
        work=args.work,
        original_python=None if python is None or "original" in args.without else str(python),
        torch="torch" not in args.without and importlib.util.find_spec("torch") is not None,
    )


def args_for(name: str, args: argparse.Namespace) -> argparse.Namespace:
    """Return a benchmark's arguments; with "all" its defaults."""
    if args.benchmark == name:
        return args
    parser = Parser()
    importlib.import_module(f"benchmarks.{name}").add_options(parser)
    return parser.parse_args([])


def make_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description=(__doc__ or "").partition(":")[0])
    subparsers = parser.add_subparsers(dest="benchmark", required=True)
    for name in (*BENCHMARKS, "all"):
        description = "all of them"
        if name != "all":
            module = importlib.import_module(f"benchmarks.{name}")
            description = (module.__doc__ or "").strip()
        subparser = subparsers.add_parser(name, help=description, description=description)
        if name != "all":
            module.add_options(subparser)
        subparser.add_argument(
            "--rounds", type=int, default=3, help="timed calls of each implementation (3)"
        )
        subparser.add_argument(
            "--work", type=Path, default=DEFAULT_FOLDER, help="folder of the random models"
        )
        subparser.add_argument(
            "--without", type=comma_separated, default=(), help="leave out: torch,original"
        )
        subparser.add_argument(
            "--original-python",
            type=Path,
            help=f"interpreter with the original packages ({'/'.join(ORIGINAL.parts[-3:])})",
        )
        subparser.add_argument(
            "--out",
            type=Path,
            default=Path("benchmarks.json"),
            help="JSON file of all results (benchmarks.json)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
