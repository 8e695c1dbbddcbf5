"""Chunks of a table, planned without its rows, have the records of one that holds all of them."""

import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from experiments.data.sources import image_tables, make_plan, table_plan
from experiments.data.sources.read_plan import SourceConfig
from experiments.data.sources.records import Candidate, Ignored
from experiments.data.sources.tables import Table

NAMES = [f"{folder}/{i}.jpg" for folder in ("лес", "й") for i in range(12)]


def written(folder, random, suffix, end="\n"):
    """A table whose rows name images again, near and far, with rows that are left out between."""
    separator = "," if suffix == ".csv" else "\t"
    lines = [separator.join(("image", "caption"))]
    for i in range(int(random.integers(0, 60))):
        name = NAMES[random.integers(len(NAMES))]
        name = unicodedata.normalize("NFD", name) if random.random() < 0.3 else name
        kind = random.random()
        if suffix == ".csv" and kind < 0.15:
            caption = f'"подпись, {i}{end}в две ""строки"""'
        elif suffix == ".csv" and kind < 0.2:
            caption = '"не закрыта'
        else:
            caption = f"caption {i}" + "\udcff" * (kind < 0.3)
        lines.append(separator.join((name, caption)))
        if kind > 0.9:
            lines.append(("", "one cell", separator, "a\0" + separator)[random.integers(4)])
    text = end.join(lines) + end * int(random.integers(2))
    mark = b"\xef\xbb\xbf" if random.random() < 0.5 else b""
    (folder / f"list{suffix}").write_bytes(mark + text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("seed", range(60))
def test_same_records_in_the_same_order(seed, tmp_path, monkeypatch):
    random = np.random.default_rng(seed)
    suffix = (".csv", ".tsv")[seed % 2]
    written(tmp_path, random, suffix, ("\n", "\r\n", "\r")[seed % 3])
    # Several buckets, and blocks of few rows.
    monkeypatch.setattr(table_plan, "SORTED_BYTES", 300)
    monkeypatch.setattr(table_plan, "ROWS_AT_ONCE", int(random.integers(1, 9)))
    size = int(random.integers(1, 9))
    config = SourceConfig(str(tmp_path), "pictures", chunk_records=size, image_column="image",
                          caption_column="caption")  # fmt: skip
    table = Table(tmp_path / f"list{suffix}", "image")
    whole = image_tables._entries(table.path, table.rows(), config)
    expected = [entry for entry in whole if entry.key is not None]
    left_out = [entry for entry in whole if entry.key is None]
    found = [
        image_tables._entries(table.path, chunk.read(table), config)
        for chunk in image_tables.plan(config).chunks
    ]
    records = [[entry for entry in chunk if entry.key is not None] for chunk in found]
    assert [entry for chunk in records for entry in chunk] == expected
    assert all(len(chunk) == size for chunk in records[:-1])
    assert [e for chunk in found for e in chunk if e.key is None] == left_out


def test_one_name_of_two_files(tmp_path):
    """Which a plan does not look at: both are read, in one chunk."""
    names = ["й.jpg", "a.jpg", "b.jpg", unicodedata.normalize("NFD", "й.jpg"), "c.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    lines = ["image,caption", *(f"{name},caption" for name in names)]
    (tmp_path / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    plan = make_plan(SourceConfig(str(tmp_path), chunk_records=2))
    found = [list(image_tables.read(plan.config, chunk)) for chunk in plan.chunks]
    assert sorted(c.key for chunk in found for c in chunk) == sorted(
        ["й.jpg", "й.jpg#2", "a.jpg", "b.jpg", "c.jpg"]
    )
    assert {c.image.decode() for chunk in found for c in chunk} == set(names)


def test_tables_without_records(tmp_path):
    (tmp_path / "list.csv").write_text("image,caption\n,\n\nx\n", encoding="utf-8")
    plan = make_plan(SourceConfig(str(tmp_path)))
    (chunk,) = plan.chunks
    found = list(image_tables.read(plan.config, chunk))
    assert len(found) == 3 and not any(isinstance(row, Candidate) for row in found)
    assert sum(isinstance(row, Ignored) for row in found) == 1


PLAN = """
import resource, sys
from experiments.data.sources import make_plan
from experiments.data.sources.read_plan import SourceConfig
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
make_plan(SourceConfig(sys.argv[1] + "/small"))
before = peak()
plan = make_plan(SourceConfig(sys.argv[1] + "/large"))
print(len(plan.chunks), (peak() - before) * 1024)
"""


def test_memory(tmp_path):
    """Planning holds no rows: they are ten times as large as what it takes."""
    rows = 150_000
    for name, count in (("small", 1), ("large", rows)):
        (tmp_path / name).mkdir()
        with (tmp_path / name / "list.csv").open("w") as file:
            file.write("image,caption\n")
            for i in range(count):
                # A fifth of the rows belongs to records far before.
                file.write(f"{i % (rows * 4 // 5):09d}.jpg,{'caption ' * 80}{i}\n")
    assert (tmp_path / "large" / "list.csv").stat().st_size > 95e6
    done = subprocess.run(
        [sys.executable, "-c", PLAN, str(tmp_path)], capture_output=True, text=True, check=True
    )
    chunks, taken = map(int, done.stdout.split())
    assert chunks == -(-rows * 4 // 5 // 4096)
    assert taken < 40e6, taken
