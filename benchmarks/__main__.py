"""Speed side by side: python -m benchmarks NAME|all [--out=FILE.json]"""

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
from benchmarks.options import Options, words
from benchmarks.random_models import FOLDER
from benchmarks.result import write_json
from clip_jax.cli import Parser, run_cli
from clip_jax.errors import InputError

BENCHMARKS = ("decode", "encode", "train", "loss", "convert", "data", "startup", "growth")
ORIGINAL = Path(__file__).parent.parent / ".venv-original/bin/python"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status (`clip_jax.cli`)."""
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: _run(make_parser().parse_args(argv)), argv)


def _run(args: argparse.Namespace) -> None:
    if args.rounds < 1:
        raise InputError(f"--rounds is {args.rounds}; expected at least 1")
    options = _options(args)
    for name, there in (("PyTorch", options.torch), ("the original", options.original_python)):
        if not there:
            print(f"{name} takes no part (docs/performance.md tells how to install it)")
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
        begun = time.monotonic()
        tables = results[name] = []
        for table in module.measure(args_of(name, args), options, machine):
            print("", *table.lines(), sep="\n", flush=True)
            tables.append(table.to_json())
            write_json(args.out, results)
        print(f"\n{name}: {time.monotonic() - begun:.0f} s", flush=True)
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


def args_of(name: str, args: argparse.Namespace) -> argparse.Namespace:
    """A benchmark's own arguments; with "all" those that it has by itself."""
    if args.benchmark == name:
        return args
    parser = Parser()
    importlib.import_module(f"benchmarks.{name}").add_options(parser)
    return parser.parse_args([])


def make_parser() -> Parser:
    parser = Parser(prog="python -m benchmarks", description=(__doc__ or "").partition(":")[0])
    subparsers = parser.add_subparsers(dest="benchmark", required=True)
    for name in (*BENCHMARKS, "all"):
        about = "each of them"
        if name != "all":
            module = importlib.import_module(f"benchmarks.{name}")
            about = (module.__doc__ or "").strip()
        added = subparsers.add_parser(name, help=about, description=about)
        if name != "all":
            module.add_options(added)
        added.add_argument("--rounds", type=int, default=3, help="turns of each peer (3)")
        added.add_argument("--work", type=Path, default=FOLDER, help="where models are kept")
        added.add_argument(
            "--without", type=words, default=(), help="peers that take no part: torch,original"
        )
        added.add_argument(
            "--original-python", type=Path, help=f"({'/'.join(ORIGINAL.parts[-3:])})"
        )
        added.add_argument(
            "--out", type=Path, default=Path("benchmarks.json"), help="(benchmarks.json)"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
