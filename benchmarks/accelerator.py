"""Programs on TPUs by the compiler's estimate: python -m benchmarks accelerator

    [--programs=350M,...] [--slices=v5e:16x16,...] [--before=FILE] [--out=docs/accelerators.json]

Each program is compiled whole, at full effort, for a slice that need not be at hand; it needs
libtpu (`pip install 'rudolph-jax[tpu]'`) and, for a step on 256 chips, some ten minutes. Training
steps are those of the configs; drawing and encoders run on one chip of a slice's kind, and their ms
are those of a code or of a batch of 128. The file
is written after every row, and a row that it has is not compiled again. --before names a file that
the same command wrote in another checkout, whose figures become "before". What the estimate leaves
out is in docs/scaling.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from benchmarks.one_chip import drawing_program, encoder_program, measure_program
from benchmarks.plan_table import planned_config
from clip_jax.atomic_file import replace_file
from clip_jax.cli import Parser, run_cli
from clip_jax.config import check_choice
from clip_jax.errors import InputError
from clip_jax.text import read_json
from experiments.config.run import TrainConfig
from experiments.planning.chips import CHIPS
from experiments.planning.plan import Plan, make_plan
from experiments.planning.topology import slice_devices

# By the name of a row: the config, whose batch and mesh a slice gets.
PROGRAMS = {
    "train 350M": "rudolph_350m",
    "train 1.3B": "rudolph_1_3b",
    "train 2.7B": "rudolph_2_7b",
    **{
        f"train {name.replace('_', '-')}": name
        for name in (
            "ruclip_vit_base_patch32_224", "ruclip_vit_base_patch16_224",
            "ruclip_vit_large_patch14_224", "ruclip_vit_large_patch14_336",
        )
    },
}  # fmt: skip
DRAWING = {
    f"decode {preset} batch {batch}": (preset, batch)
    for preset in ("350M", "1.3B", "2.7B")
    for batch in (1, 32, 256)
}
ENCODERS = {
    f"encode {preset} {tower}": (preset, tower)
    for preset in (
        "ruclip-vit-base-patch32-224", "ruclip-vit-base-patch16-224", "ruclip-vit-large-patch14-336"
    )
    for tower in ("images", "texts")
}  # fmt: skip
NAMES = (*PROGRAMS, *DRAWING, *ENCODERS)
SLICES = ("v5e:16x16", "v5p:8x8x8", "v6e:16x16")
PACKAGES = ("jax", "jaxlib", "libtpu")


def measure(program: str, topology: str) -> dict[str, Any]:
    """Return the estimate of a step, a code or a batch: {"ms", "mfu", "gb", "work"}.

    gb: the peak of a device. A step has "settings" too, those of `settings_of`.
    """
    if program in DRAWING:
        return measure_program(drawing_program(*DRAWING[program]), topology.partition(":")[0])
    if program in ENCODERS:
        return measure_program(encoder_program(*ENCODERS[program]), topology.partition(":")[0])
    devices, generation = slice_devices(topology), topology.partition(":")[0]
    config = planned_config(PROGRAMS[program], len(devices))
    plan = make_plan(config, devices, CHIPS[generation], generation=generation)
    jax.clear_caches()
    return {**row_of(plan), "settings": settings_of(config)}


def settings_of(config: TrainConfig) -> dict[str, int]:
    """Return what a step is cut by, as keys of the config: its time is of these alone."""
    return {"mesh.fsdp": config.mesh.fsdp, "grad_accum_steps": config.grad_accum_steps}


def row_of(plan: Plan) -> dict[str, Any]:
    """Return a plan's figures in the form of the file; without a time where it does not fit."""
    if plan.work is None or plan.step_seconds is None or plan.mfu is None:
        return {"ms": None, "mfu": None, "gb": round(plan.peak_bytes / 1e9, 3), "work": None}
    work = {kind: round(1000 * cost["seconds"], 3) for kind, cost in plan.work.items()}
    return {
        "ms": round(1000 * plan.step_seconds, 3),
        "mfu": round(plan.mfu, 4),
        "gb": round(plan.peak_bytes / 1e9, 3),
        "work": {kind: ms for kind, ms in work.items() if ms >= 0.01},
    }


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of docs/performance.md."""
    lines = ["| program | slice | ms before | ms | MFU before | MFU | GB | largest parts, ms |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for row in rows:
        before, after = row.get("before") or {}, row["after"]
        largest = sorted((after["work"] or {}).items(), key=lambda part: -part[1])[:4]
        cells = [
            row["program"], row["slice"], _ms(before.get("ms")), _ms(after["ms"]),
            _share(before.get("mfu")), _share(after["mfu"]), f"{after['gb']:.1f}",
            ", ".join(f"{kind} {_ms(ms)}" for kind, ms in largest),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "?" if value is None else f"{value:,.{0 if value >= 20 else 2}f}"


def _share(value: float | None) -> str:
    return "?" if value is None else f"{value:.0%}"


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks accelerator", description=__doc__)
    add = parser.add_argument
    add("--programs", default=",".join(NAMES), metavar="NAMES",
        help=f"of the rows, with commas ({','.join(NAMES)})")
    add("--slices", default=",".join(SLICES), metavar="NAMES",
        help=f"generation and chips along each side ({','.join(SLICES)})")
    add("--before", type=Path, metavar="FILE", help="of another checkout (none)")
    add("--out", type=Path, default=Path("docs/accelerators.json"), metavar="FILE",
        help="what the rows are written to (docs/accelerators.json)")
    args = parser.parse_args(argv)
    programs, slices = args.programs.split(","), args.slices.split(",")
    for name in programs:
        check_choice("--programs", name, NAMES)
    for topology in slices:
        check_choice("--slices", topology.partition(":")[0], tuple(CHIPS))
    before = {_key(row): row["after"] for row in _read(args.before)["rows"]} if args.before else {}
    found = _read(args.out) if args.out.exists() else {"rows": []}
    rows = {_key(row): row for row in found["rows"]}
    jax.config.update("jax_platforms", "cpu")
    for program in programs:
        for topology in slices:
            alone = program not in PROGRAMS
            key = program, f"{topology.partition(':')[0]}:1" if alone else topology
            if key not in rows:
                print(f"compiling {program} for {topology}", file=sys.stderr, flush=True)
                after = measure(program, topology)
                rows[key] = {"program": program, "slice": key[1], "before": None, "after": after}
            if key in before:
                rows[key]["before"] = before[key]
            versions = {name: metadata.version(name) for name in PACKAGES}
            data = {"versions": versions, "rows": list(rows.values())}
            replace_file(args.out, json.dumps(data, indent=1) + "\n")
    print(to_markdown(list(rows.values())))


def _read(file: Path) -> dict[str, Any]:
    found = read_json(file)
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
        raise InputError(f"{file}: holds no rows of this benchmark; name another file")
    return found


def _key(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["program"], row["slice"]


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: _run(argv), argv)


if __name__ == "__main__":
    sys.exit(main())
