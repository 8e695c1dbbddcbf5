"""The table of docs/scaling.md is what the project's constants make of it."""

from pathlib import Path

from benchmarks import scale_table
from benchmarks.scale_table import HEAD, checkpoint_bytes, table_row

PAGE = Path(__file__).parents[2] / "docs/scaling.md"


def test_the_page_has_the_table():
    assert scale_table.markdown() in PAGE.read_text(encoding="utf-8")


def test_messages_grow_with_the_processes_and_memory_does_not():
    rows = [
        dict(zip(HEAD, table_row("rudolph_350m", n), strict=True)) for n in scale_table.PROCESSES
    ]
    for name in ("watchdog, values/s", "beats, values/s"):
        few, _, many = (float(row[name].replace(",", "")) for row in rows)
        assert many / few < 34  # 2,048 / 64 is 32
    assert float(rows[2]["host memory, GB"]) <= float(rows[0]["host memory, GB"])


def test_a_sharded_checkpoint_counts_all_shards():
    # 0.18 + 0.36 GB a device, of which eight hold different parts.
    assert checkpoint_bytes("rudolph_350m") == 8 * 0.54e9
