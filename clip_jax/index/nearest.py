"""Finds the rows of the largest cosines: all of them compared, or by faiss in large indexes.

faiss's inverted lists hold each row in eight bits (IVF,SQ8); the best of a query are compared once
more by their float16 embeddings. How many lists a query looks into is chosen when the index is
built, by the recall among the first ten of SAMPLE queries.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from clip_jax.index.catalog import Catalog
from clip_jax.index.embeddings import RowReader, embeddings_file, read_embeddings

EXACT_LIMIT = 200_000  # rows up to which all are compared
BLOCK = 1 << 14  # rows that are converted to float32 at once
SAMPLE, SAMPLE_COUNT = 256, 10
QUERIES = 512  # compared with a block at once
WANTED_RECALL = 0.95
PROBES = (8, 16, 32, 64, 128)
RESCORED = 8  # times as many as wanted are compared once more
TRAINING_ROWS_PER_LIST = 40
NOISE = 0.5  # length of what is added to a row to make a query of it


def has_faiss() -> bool:
    """Returns whether the package of the extra `search` is installed."""
    return importlib.util.find_spec("faiss") is not None


class Exact:
    """Compares all rows, float16[rows, E]. recall: of this search among the first ten."""

    recall = 1.0

    def __init__(self, embeddings: np.ndarray) -> None:
        self._embeddings = embeddings

    def close(self) -> None:
        """Holds nothing open."""

    def __call__(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns up to `count` rows, the largest cosine first, ties by row; and the cosines."""
        cosines = np.concatenate(
            [
                self._embeddings[start : start + BLOCK].astype(np.float32) @ vector
                for start in range(0, len(self._embeddings), BLOCK)
            ]
            or [np.zeros(0, np.float32)]
        )
        return best_of(np.arange(len(cosines)), cosines, count)


class Approximate:
    """Looks into some lists of a faiss index, and compares what it finds once more."""

    def __init__(self, index: Any, embeddings: np.ndarray, probes: int, recall: float) -> None:
        index.nprobe = probes
        self._index, self.recall = index, recall
        self._rows = RowReader(embeddings)

    def close(self) -> None:
        self._rows.close()

    def __call__(self, vector: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the same as `Exact`, but for what the recall leaves out."""
        wanted = min(count * RESCORED, self._index.ntotal)
        _, found = self._index.search(vector[None].astype(np.float32), wanted)
        rows = np.sort(found[0][found[0] >= 0])
        return best_of(rows, self._rows.read(rows).astype(np.float32) @ vector, count)


def best_of(rows: np.ndarray, cosines: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Selects the `count` largest without sorting the others; rows are in rising order."""
    if count < len(cosines):
        # The smallest cosine that is among the best; equal ones are taken in the rows' order.
        least = np.partition(cosines, -count)[-count]
        places = np.flatnonzero(cosines >= least)
    else:
        places = np.arange(len(cosines))
    order = places[np.argsort(-cosines[places], kind="stable")][:count]
    return rows[order], cosines[order]


def open_search(folder: Path, facts: dict[str, str], embeddings: np.ndarray) -> Any:
    """Returns the search that fits an index: by faiss where there is one of these rows."""
    file = _file(folder, facts)
    if not has_faiss() or not file.exists() or facts.get("faiss_rows") != facts["rows"]:
        return Exact(embeddings)
    import faiss

    index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    recall = float(facts["faiss_recall"])
    return Approximate(index, embeddings, int(facts["faiss_probes"]), recall)


def update(folder: Path, catalog: Catalog, quiet: bool) -> None:
    """Makes the faiss index of an index above EXACT_LIMIT rows, or adds the new rows to it."""
    facts = catalog.facts()
    rows = int(facts["rows"])
    if rows <= EXACT_LIMIT or facts.get("faiss_rows") == facts["rows"]:
        return
    if not has_faiss():
        print(
            f"{rows} images are searched one by one; pip install 'rudolph-jax[search]' and index "
            "again for faiss",
            flush=True,
        )
        return
    import faiss

    if not quiet:
        print(f"faiss: {rows} rows", flush=True)
    file = _file(folder, facts)
    embeddings = read_embeddings(
        embeddings_file(folder, int(facts["version"])), rows, int(facts["width"])
    )
    old = int(facts.get("faiss_rows", 0))
    trained = int(facts.get("faiss_trained", 0))
    if file.exists() and old < rows < 2 * trained:
        index = faiss.read_index(str(file))
    else:
        index, old, trained = _trained(embeddings), 0, rows
    for start in range(old, rows, BLOCK):
        index.add(np.asarray(embeddings[start : min(start + BLOCK, rows)], np.float32))
    temporary = file.with_suffix(".new")
    faiss.write_index(index, str(temporary))
    temporary.replace(file)
    probes, recall = _choose_probes(index, embeddings)
    catalog.commit(
        (),
        {
            "faiss_rows": rows,
            "faiss_trained": trained,
            "faiss_probes": probes,
            "faiss_recall": round(recall, 4),
        },
    )


def _trained(embeddings: np.ndarray) -> Any:
    import faiss

    rows, width = embeddings.shape
    lists = 1 << round(math.log2(math.sqrt(rows)))
    index = faiss.index_factory(width, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
    sample = np.random.default_rng(0).choice(
        rows, min(rows, lists * TRAINING_ROWS_PER_LIST), replace=False
    )
    index.train(embeddings[np.sort(sample)].astype(np.float32))
    return index


def _choose_probes(index: Any, embeddings: np.ndarray) -> tuple[int, float]:
    """Returns the fewest lists whose recall suffices, and the recall.

    A query is an image's embedding with noise of half its length.
    """
    rng = np.random.default_rng(1)
    rows = np.sort(rng.choice(len(embeddings), min(SAMPLE, len(embeddings)), replace=False))
    noise = rng.normal(size=(len(rows), embeddings.shape[1])).astype(np.float32)
    noise *= NOISE / np.linalg.norm(noise, axis=1, keepdims=True)
    queries = embeddings[rows].astype(np.float32) + noise
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    truth = exact_sets(embeddings, queries)
    recall, probes = 0.0, PROBES[0]
    for probes in PROBES:
        search = Approximate(index, embeddings, probes, 0.0)
        found = [set(search(query, SAMPLE_COUNT)[0].tolist()) for query in queries]
        recall = float(np.mean([len(a & b) / len(b) for a, b in zip(found, truth, strict=True)]))
        if recall >= WANTED_RECALL:
            break
    return probes, recall


def exact_sets(embeddings: np.ndarray, queries: np.ndarray) -> list[set[int]]:
    """Returns the SAMPLE_COUNT best rows of each query, of one pass over the embeddings.

    Of BLOCK rows and QUERIES queries at once, which takes 100 MB.
    """
    count = min(SAMPLE_COUNT, len(embeddings))
    cosines = np.full((len(queries), count), -np.inf, np.float32)
    rows = np.zeros((len(queries), count), np.int64)
    for start in range(0, len(embeddings), BLOCK):
        block = embeddings[start : start + BLOCK].astype(np.float32)
        for first in range(0, len(queries), QUERIES):
            some = slice(first, first + QUERIES)
            found = queries[some] @ block.T
            best = np.argpartition(-found, min(count, found.shape[1]) - 1, axis=1)[:, :count]
            both = np.hstack([cosines[some], np.take_along_axis(found, best, axis=1)])
            numbers = np.hstack([rows[some], best + start])
            order = np.argpartition(-both, count - 1, axis=1)[:, :count]
            cosines[some] = np.take_along_axis(both, order, axis=1)
            rows[some] = np.take_along_axis(numbers, order, axis=1)
    return [set(each.tolist()) for each in rows]


def _file(folder: Path, facts: dict[str, str]) -> Path:
    return folder / f"faiss-{facts['version']}.index"
