"""Memory and time to plan a large table: python -m benchmarks.table_planning --rows=50000000

Generates a CSV of names and captions, of which one row in a hundred is of an earlier image, plans
its chunks as `experiments.prepare` does, and prints the peak memory of this process. The table is
40 to 50 bytes a row and removed afterwards; notes of as many bytes are in TMPDIR meanwhile.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from clip_jax.cli import Parser
from clip_jax.errors import InputError
from experiments.cli.exit_status import exit_status
from experiments.data.sources import make_plan
from experiments.data.sources.read_plan import SourceConfig

AGAIN = 100  # one row in so many is of an earlier image
BLOCK = 100_000  # rows that are written at once


def write_table(file: Path, rows: int) -> None:
    """Writes a CSV of so many rows."""
    with file.open("w", encoding="utf-8") as opened:
        opened.write("image,caption\n")
        for start in range(0, rows, BLOCK):
            numbers = range(start, min(start + BLOCK, rows))
            opened.write(
                "".join(
                    f"{i // 2 if i % AGAIN == 1 else i:09d}.jpg,caption number {i}\n"
                    for i in numbers
                )
            )


def peak_memory() -> int:
    """Returns the largest resident size of this process so far, in bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else 1024 * size


def measure(rows: int) -> dict[str, float]:
    """Plans a table of so many rows: {"chunks", "seconds", "before", "peak"}, the last in bytes."""
    with tempfile.TemporaryDirectory(prefix="rudolph-jax-") as folder:
        file = Path(folder) / "table.csv"
        write_table(file, rows)
        before, start = peak_memory(), time.perf_counter()
        plan = make_plan(SourceConfig(str(file)))
        seconds = time.perf_counter() - start
        return {
            "chunks": len(plan.chunks), "seconds": seconds, "before": before, "peak": peak_memory()
        }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    return exit_status(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks.table_planning", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="(1000000)")
    rows = parser.parse_args(argv).rows
    if rows < 1:
        raise InputError(f"--rows is {rows}; expected at least 1")
    found = measure(rows)
    print(
        f"{rows:,} rows in {found['chunks']:,} chunks: {found['seconds']:,.0f} s, "
        f"{1e6 * found['seconds'] / rows:.1f} us a row, peak {found['peak'] / 1e6:,.0f} MB, "
        f"{(found['peak'] - found['before']) / 1e6:,.0f} MB of it for the plan"
    )


if __name__ == "__main__":
    sys.exit(main())
