"""The table of docs/scaling.md: python -m benchmarks.plan_table --rows=plans.jsonl

Plans every large config on slices of every generation and prints Markdown. Each plan is kept as a
line of --rows as soon as it is made, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from clip_jax.command import Parser
from clip_jax.config import check_choice
from experiments.cli.exit_status import exit_status
from experiments.config.run import MeshConfig, TrainConfig
from experiments.planning.chips import CHIPS
from experiments.planning.plan import make_plan
from experiments.planning.topology import slice_devices

# Rows that a device has in a micro-batch at most, chosen for 16 GB a device.
CONFIGS = {
    "ruclip_vit_base_patch32_224": 1024,
    "ruclip_vit_base_patch16_224": 256,
    "ruclip_vit_base_patch32_384": 512,
    "ruclip_vit_base_patch16_384": 128,
    "ruclip_vit_large_patch14_224": 128,
    "ruclip_vit_large_patch14_336": 64,
    "rudolph_350m": 16,
    "rudolph_1_3b": 2,
    "rudolph_2_7b": 2,
}
# v5e and v6e end at 256 chips.
TOPOLOGIES = (
    "v4:8x8x8", "v5e:16x16", "v5p:8x8x8", "v6e:16x16",
    "v4:2x2x2", "v5e:2x4", "v5p:2x2x2", "v6e:2x4",
    "v4:8x16x16", "v5p:8x16x16",
    "v4:4x4x4", "v5e:8x8", "v5p:4x4x4", "v6e:8x8",
)  # fmt: skip
HEAD = (
    "| config | slice | devices | mesh | micro-batches | parameters | optimiser | batch | "
    "temporaries | peak | fits | sent |\n" + "|---" * 12 + "|"
)


def planned_config(name: str, devices: int) -> TrainConfig:
    """An experiment file's config, in as many micro-batches as its rows need on these devices."""
    module = importlib.import_module(f"experiments.configs.{name}")
    config: TrainConfig = module.train_config()
    rows = config.data.batch_size // devices
    return dataclasses.replace(config, accumulate=max(rows // CONFIGS[name], 1))


def fill(path: Path, configs: Sequence[str], topologies: Sequence[str]) -> None:
    """Adds to the file what it does not have yet."""
    for name in configs:
        check_choice("--configs", name, tuple(CONFIGS))
    known = {(row["config"], row["topology"]) for row in read(path)}
    wanted = [(c, t) for t in topologies for c in configs if (c, t) not in known]
    for name, topology in tqdm(wanted, "planning"):
        devices = slice_devices(topology)
        chip = CHIPS[topology.partition(":")[0]]
        plan = make_plan(planned_config(name, len(devices)), devices, chip, quick=True)
        with path.open("a") as file:
            row = {"config": name, "topology": topology, **plan.to_dict()}
            file.write(json.dumps(row) + "\n")
        jax.clear_caches()


def read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; sizes in GB of one device, what a device sends in a step in GB."""
    order = list(CONFIGS), ["v4", "v5e", "v5p", "v6e"]

    def place(row: dict[str, Any]) -> tuple[int, int, int]:
        generation = row["topology"].partition(":")[0]
        return order[0].index(row["config"]), order[1].index(generation), _devices(row)

    return "\n".join([HEAD, *(_line(row) for row in sorted(rows, key=place))])


def _line(row: dict[str, Any]) -> str:
    sent = row["sent_bytes"]
    cells = [
        row["config"],
        row["topology"],
        f"{_devices(row):,}",
        "x".join(str(size) for size in row["mesh"].values()),
        str(row["accumulate"]),
        *(
            _gigabytes(row[f"{kind}_bytes"])
            for kind in ("parameter", "optimizer", "batch", "temporary", "peak")
        ),
        "yes" if row["fits"] else "no",
        _gigabytes(None if sent is None else sum(sent.values())),
    ]
    return f"| {' | '.join(cells)} |"


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
    parser.add_argument("--configs", default=",".join(CONFIGS), help="some of the configs")
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES), help="slices, in this order")
    parser.add_argument("--print-only", action="store_true", help="plan nothing more")
    args = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")
    path = Path(args.rows)
    if not args.print_only:
        fill(path, args.configs.split(","), args.topologies.split(","))
    print(table(read(path)))


if __name__ == "__main__":
    sys.exit(main())
