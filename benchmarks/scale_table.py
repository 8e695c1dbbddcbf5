"""Print what grows with the processes of a run: python -m benchmarks.scale_table

Prints the Markdown table of docs/scaling.md, by arithmetic from the project's own constants and
from the plans in docs/plans.csv. What is assumed stands in the page.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli import Parser
from experiments.cli.exit_status import exit_status
from experiments.data.shard_readers import MOST_READERS
from experiments.data.sources.shards import WriteConfig
from experiments.distributed.lost_peers import BEAT_SECONDS, values_a_beat
from experiments.distributed.watchdog import TICK_SECONDS, values_a_tick
from experiments.start_checks.data import READER_BYTES, SHARD_BYTES

PLANS = Path(__file__).parent.parent / "docs/plans.csv"
PROCESSES = (64, 512, 2048)
RECORDS, RECORD_BYTES = 240e6, 31.5e3  # photographs of 400 by 300 pixels with a caption
DEVICES = 4  # of a process
CHECKPOINT_STEPS = 1000
BASE_BYTES = 1.05e9  # the largest process of `benchmarks.lost_process`, rounded up
OTHER_FILES = 100  # sockets, libraries, logs
PREFETCHED = 6  # batches: read ahead, at hand, on their way
UPLOAD_BYTES = 200e6  # of a host, a second
# Config -> bytes of a prepared example, rows of a device in a step, seconds of a step (v5e, by the
# compiler's cycles: docs/scaling.md).
RUNS = {
    "ruclip_vit_base_patch16_224": (224 * 224 * 3 + 4 * 77, 128, 0.202),
    "rudolph_350m": (128 * 128 * 3 + 4 * 384, 8, 0.070),
}
HEAD = (
    "config", "processes", "host memory, GB", "open files", "reads/s of a process", "of all",
    "MB to storage a step", "checkpoint, GB", "checkpoint, s", "watchdog, values/s", "before",
    "beats, values/s",
)  # fmt: skip


def checkpoint_bytes(config: str) -> float:
    """Returns the size of parameters and optimiser state, by the plan for v5e:16x16."""
    with PLANS.open(encoding="utf-8", newline="") as opened:
        rows = [
            row for row in csv.DictReader(opened)
            if (row["config"], row["slice"]) == (config, "v5e:16x16")
        ]  # fmt: skip
    (row,) = rows
    _, fsdp, tensor = map(int, row["mesh"].split("x"))
    return 1e9 * fsdp * tensor * (float(row["parameters"]) + float(row["optimiser"]))


def table_row(config: str, processes: int) -> tuple[str, ...]:
    """Returns the cells below HEAD."""
    example, rows, step = RUNS[config]
    shards = math.ceil(RECORDS * RECORD_BYTES / WriteConfig.shard_bytes)
    readers = min(shards, MOST_READERS)
    checkpoint = checkpoint_bytes(config)
    share = checkpoint / processes  # each process copies and writes its own
    prefetched = PREFETCHED * DEVICES * rows * example
    memory = BASE_BYTES + SHARD_BYTES * shards + READER_BYTES * readers + prefetched + share
    reads = DEVICES * rows / step
    return (
        config, f"{processes:,}", f"{memory / 1e9:.2f}", f"{readers + OTHER_FILES:,}",
        f"{reads:,.0f}", f"{reads * processes:,.0f}",
        f"{checkpoint / CHECKPOINT_STEPS / 1e6:.1f}", f"{checkpoint / 1e9:.1f}",
        f"{share / UPLOAD_BYTES:.2f}", f"{values_a_tick(processes) / TICK_SECONDS:,.0f}",
        f"{processes + processes**2:,}",  # a write and all reads, each second
        f"{values_a_beat(processes, 1) / BEAT_SECONDS:,.0f}",
    )  # fmt: skip


def markdown() -> str:
    lines = [HEAD, ("---",) * len(HEAD)]
    lines += [table_row(config, processes) for config in RUNS for processes in PROCESSES]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    Parser(prog="python -m benchmarks.scale_table", description=__doc__).parse_args(argv)
    print(markdown())


if __name__ == "__main__":
    sys.exit(main())
