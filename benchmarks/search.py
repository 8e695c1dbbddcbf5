"""Time and memory of a search among many embeddings: python -m benchmarks.search [--rows 1e6]

Writes an index of random embeddings around many centres, as images have them, and searches it
beside faiss's flat index and a product in NumPy. Each way has a process of its own, and prints its
line of a Markdown table: seconds to build and to open, the median time of a query, the largest
memory of the process that searches, and the recall among the first ten against the exact search.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clip_jax.cli import Parser, positive_int, run_cli
from clip_jax.index import nearest, open_index
from clip_jax.index.catalog import Catalog, Indexed
from clip_jax.index.embeddings import EmbeddingWriter, embeddings_file, read_embeddings
from clip_jax.index.sources import Entry

HEAD = """| search | build s | open s | ms a query | GB | recall@10 |
|---|---|---|---|---|---|"""
CENTRES, SPREAD = 5_000, 0.7  # length of what is added to a centre of length 1
BLOCK = 10_000
COUNT = 10
TIMED, FEWEST = 200, 10  # queries whose time is taken, one by one, fewer of a slow way
LONGEST = 30.0  # seconds, after which FEWEST are enough
WAYS = ("index", "faiss flat", "NumPy")
Search = Callable[[np.ndarray], np.ndarray]


def random_rows(rows: int, width: int, seed: int) -> Iterator[np.ndarray]:
    """Yield float32[BLOCK, width] of unit length, from the same centres for every seed."""
    centres = np.random.default_rng(0).normal(size=(CENTRES, width)).astype(np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        noise = rng.standard_normal((count, width), np.float32) * (SPREAD / np.sqrt(width))
        block = centres[rng.integers(0, CENTRES, count)] + noise
        yield block / np.linalg.norm(block, axis=1, keepdims=True)


def write_index(folder: Path, rows: int, width: int) -> float:
    """Write an index of random rows; return the seconds that faiss took."""
    catalog = Catalog(folder, write=True)
    writer = EmbeddingWriter(embeddings_file(folder, 0), 0, width)
    for block in random_rows(rows, width, seed=1):
        images = [
            Indexed(Entry(f"{row:09d}.jpg", 1, 1), row.to_bytes(8, "big"), row, None)
            for row in writer.append(block)
        ]
        catalog.commit(images, {"rows": writer.rows, "width": width, "version": 0})
    writer.close()
    start = time.perf_counter()
    nearest.update(folder, catalog, quiet=True)
    return time.perf_counter() - start


def open_way(way: str, folder: Path) -> tuple[Search, float]:
    """Return a search that gives the rows of the best COUNT, and the seconds to build it."""
    if way == "index":
        index = open_index(folder)
        return lambda query: np.array([int(m.key[:9]) for m in index.search(query, COUNT)]), 0.0
    facts = Catalog(folder, write=False).facts()
    rows = read_embeddings(embeddings_file(folder, 0), int(facts["rows"]), int(facts["width"]))
    start = time.perf_counter()
    if way == "NumPy":
        values = rows.astype(np.float32)
        return lambda query: np.argsort(-(values @ query))[:COUNT], time.perf_counter() - start
    import faiss

    flat = faiss.IndexFlatIP(rows.shape[1])
    for first in range(0, len(rows), BLOCK):
        flat.add(rows[first : first + BLOCK].astype(np.float32))
    built = time.perf_counter() - start
    return lambda query: flat.search(query[None], COUNT)[1][0], built


def measure(way: str, folder: Path, queries: int, build_seconds: float) -> str:
    """Return the line of the table, measured in this process."""
    if way == "faiss flat":
        import faiss  # noqa: F401 - its import is not counted
    start = time.perf_counter()
    search, built = open_way(way, folder)
    opened = time.perf_counter() - start - built
    width = int(Catalog(folder, write=False).facts()["width"])
    asked = np.concatenate(list(random_rows(queries, width, seed=2)))
    search(asked[0])
    times = []
    end = time.perf_counter() + LONGEST
    for number, query in enumerate(asked[:TIMED]):
        if number >= FEWEST and time.perf_counter() > end:
            break
        start = time.perf_counter()
        search(query)
        times.append(time.perf_counter() - start)
    memory = peak_bytes() / 2**30
    recall = "1"
    if way == "index":
        facts = Catalog(folder, write=False).facts()
        rows = read_embeddings(embeddings_file(folder, 0), int(facts["rows"]), width)
        truth = nearest.exact_sets(rows, asked)
        hits = sum(
            len(best & set(search(query).tolist()))
            for best, query in zip(truth, asked, strict=True)
        )
        recall = f"{hits / sum(map(len, truth)):.4f} of {queries} queries"
    return (
        f"| {way} | {build_seconds + built:.1f} | {opened:.2f} | {np.median(times) * 1e3:.1f} | "
        f"{memory:.2f} | {recall} |"
    )


def peak_bytes() -> int:
    """Return the largest memory of this process so far.

    `ru_maxrss` of a process that another started is at least what that one had.
    """
    status = Path("/proc/self/status").read_text("ascii")
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    return int(kilobytes) * 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status (`clip_jax.cli`)."""
    argv = sys.argv[1:] if argv is None else argv
    return run_cli(lambda: _run(argv), argv)


def _run(argv: Sequence[str]) -> None:
    parser = Parser(prog="python -m benchmarks.search", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=_count, default=1_000_000, help="embeddings")
    parser.add_argument("--width", type=positive_int, default=512, help="of an embedding")
    parser.add_argument(
        "--queries", type=_count, default=10_000, help="whose recall is measured"
    )
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "FOLDER", "SECONDS"), default=None,
                        help="measure one way in this process")  # fmt: skip
    args = parser.parse_args(argv)
    if args.measure:
        way, folder, seconds = args.measure
        print(measure(way, Path(folder), args.queries, float(seconds)), flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        seconds = write_index(Path(folder), args.rows, args.width)
        print(f"{args.rows} embeddings of {args.width} values\n{HEAD}", flush=True)
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.search", f"--queries={args.queries}"]
            built = seconds if way == "index" else 0.0
            measured = ["--measure", way, folder, str(built)]
            subprocess.run([*command, *measured], check=True, cwd=Path(__file__).parents[1])


def _count(text: str) -> int:
    return positive_int(str(int(float(text))))


if __name__ == "__main__":
    sys.exit(main())
