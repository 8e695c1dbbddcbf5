"""Plans of all large configs: python -m benchmarks.plan_table --rows=plans.jsonl --csv=plans.csv

Plans every large config on slices of every generation, writes a CSV and prints the Markdown table
of docs/scaling.md. Each plan is appended to --rows when it is made; the same command resumes there.
"""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from clip_jax.atomic_file import replace_file
from clip_jax.cli import Parser
from clip_jax.config import check_choice
from experiments.cli.exit_status import exit_status
from experiments.config.run import MeshConfig, TrainConfig
from experiments.planning.chips import CHIPS
from experiments.planning.plan import make_plan
from experiments.planning.topology import slice_devices

# Largest micro-batch of a device, chosen for 16 GB a device.
MAX_MICROBATCH = {
    "ruclip_vit_base_patch32_224": 1024,
    "ruclip_vit_base_patch16_224": 256,
    "ruclip_vit_base_patch32_384": 512,
    "ruclip_vit_base_patch16_384": 128,
    "ruclip_vit_large_patch14_224": 128,
    "ruclip_vit_large_patch14_336": 128,
    "rudolph_350m": 16,
    "rudolph_1_3b": 2,
    "rudolph_2_7b": 2,
}
# What is quickest on large slices by the compiler's cycles (docs/scaling.md): rows of a micro-batch
# (each of which gathers the parameters) and `mesh.fsdp`.
LARGE_SLICE = 256  # devices
LARGE_SLICE_SETTINGS = {
    "rudolph_350m": (16, 32),
    "rudolph_1_3b": (4, 32),
    "rudolph_2_7b": (4, 32),
}
# v5e and v6e end at 256 chips.
TOPOLOGIES = (
    "v4:8x8x8", "v5e:16x16", "v5p:8x8x8", "v6e:16x16",
    "v4:2x2x2", "v5e:2x4", "v5p:2x2x2", "v6e:2x4",
    "v4:8x16x16", "v5p:8x16x16",
    "v4:4x4x4", "v5e:8x8", "v5p:4x4x4", "v6e:8x8",
)  # fmt: skip
COLUMNS = (
    "config", "slice", "devices", "mesh", "micro-batches", "parameters", "optimiser", "batch",
    "temporaries", "peak", "fits", "sent",
)  # fmt: skip
DEFAULT_SLICES = ("v5e:16x16",)


def planned_config(name: str, devices: int) -> TrainConfig:
    """Return an experiment's config with the micro-batches that it needs on these devices."""
    module = importlib.import_module(f"experiments.configs.{name}")
    config: TrainConfig = module.train_config()
    most, fsdp = MAX_MICROBATCH[name], config.mesh.fsdp
    if devices >= LARGE_SLICE:
        most, fsdp = LARGE_SLICE_SETTINGS.get(name, (most, fsdp))
    return dataclasses.replace(
        config,
        grad_accum_steps=max(config.data.batch_size // devices // most, 1),
        mesh=dataclasses.replace(config.mesh, fsdp=fsdp),
    )


def add_missing_plans(path: Path, configs: Sequence[str], topologies: Sequence[str]) -> None:
    """Append the plans that the file lacks."""
    for name in configs:
        check_choice("--configs", name, tuple(MAX_MICROBATCH))
    done = {(row["config"], row["topology"]) for row in read_plans(path)}
    wanted = [(c, t) for t in topologies for c in configs if (c, t) not in done]
    for name, topology in tqdm(wanted, "planning"):
        devices = slice_devices(topology)
        chip = CHIPS[topology.partition(":")[0]]
        plan = make_plan(planned_config(name, len(devices)), devices, chip, quick=True)
        with path.open("a") as file:
            row = {"config": name, "topology": topology, **plan.to_dict()}
            file.write(json.dumps(row) + "\n")
        jax.clear_caches()


def read_plans(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def to_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Return the table in Markdown: memory of a device and bytes that it sends in a step, in GB."""
    head = f"| {' | '.join(COLUMNS)} |\n" + "|---" * len(COLUMNS) + "|"
    return "\n".join([head, *(f"| {' | '.join(_cells(row))} |" for row in _sorted(rows))])


def to_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Return the same columns as CSV, a line a plan."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_cells(row) for row in _sorted(rows))
    return text.getvalue()


def _sorted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    configs, generations = list(MAX_MICROBATCH), ["v4", "v5e", "v5p", "v6e"]

    def position(row: dict[str, Any]) -> tuple[int, int, int]:
        generation = row["topology"].partition(":")[0]
        return configs.index(row["config"]), generations.index(generation), _devices(row)

    return sorted(rows, key=position)


def _cells(row: dict[str, Any]) -> list[str]:
    sent = row["sent_bytes"]
    return [
        row["config"],
        row["topology"],
        str(_devices(row)),
        "x".join(str(size) for size in row["mesh"].values()),
        str(row["grad_accum_steps"]),
        *(
            _gigabytes(row[f"{kind}_bytes"])
            for kind in ("parameter", "optimizer", "batch", "temporary", "peak")
        ),
        "yes" if row["fits"] else "no",
        _gigabytes(None if sent is None else sum(sent.values())),
    ]


def _gigabytes(size: float | None) -> str:
    return "?" if size is None else f"{size / 1e9:.2f}"


def _devices(row: dict[str, Any]) -> int:
    mesh = MeshConfig(**row["mesh"])
    return mesh.data * mesh.fsdp * mesh.tensor


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: run(argv), argv)


def run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks.plan_table", description=__doc__)
    parser.add_argument("--rows", required=True, help="JSONL file of the plans made so far")
    parser.add_argument(
        "--configs", default=",".join(MAX_MICROBATCH), help="comma-separated (all large configs)"
    )
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES), help="slices, in this order")
    parser.add_argument("--print-only", action="store_true", help="print without planning more")
    parser.add_argument("--csv", help="file for the table of all plans")
    parser.add_argument("--show", default=",".join(DEFAULT_SLICES), help="slices to print")
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    path = Path(args.rows)
    if not args.print_only:
        add_missing_plans(path, args.configs.split(","), args.topologies.split(","))
    rows = read_plans(path)
    if args.csv:
        replace_file(Path(args.csv), to_csv(rows))
    print(to_markdown([row for row in rows if row["topology"] in args.show.split(",")]))


if __name__ == "__main__":
    sys.exit(main())
