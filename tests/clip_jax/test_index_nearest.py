"""The search in many rows: exact, and by faiss above a limit."""

import numpy as np
import pytest

from clip_jax.errors import InputError
from clip_jax.index import nearest
from clip_jax.index.catalog import Catalog, Indexed
from clip_jax.index.embeddings import (
    EmbeddingWriter,
    RowReader,
    embeddings_file,
    read_embeddings,
)
from clip_jax.index.folder import open_index
from clip_jax.index.sources import Entry

WIDTH = 32


def _rows(count, seed=0):
    """Returns unit rows around 50 centres, float32[count, WIDTH]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(50, WIDTH))
    rows = centres[rng.integers(0, 50, count)] + 0.5 * rng.normal(size=(count, WIDTH))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _write(folder, rows, first=0):
    folder.mkdir(exist_ok=True)
    catalog = Catalog(folder, write=True)
    writer = EmbeddingWriter(embeddings_file(folder, 0), first, WIDTH)
    numbers = writer.append(rows)
    writer.close()
    images = [
        Indexed(Entry(f"{row:06d}", 1, 1), row.to_bytes(8, "big"), row, None) for row in numbers
    ]
    facts = {"rows": numbers.stop, "width": WIDTH, "version": 0, "format": "1"}
    catalog.commit(images, facts)
    return catalog


@pytest.mark.parametrize("count", [1, 5, 17])
def test_the_best_are_those_of_a_full_sort_with_ties_by_row(count):
    cosines = np.random.default_rng(0).integers(0, 4, 17).astype(np.float32)
    rows, found = nearest.best_of(np.arange(17), cosines, count)
    expected = sorted(range(17), key=lambda row: (-cosines[row], row))[:count]
    assert rows.tolist() == expected and found.tolist() == cosines[expected].tolist()


def test_blocks_do_not_change_the_result(monkeypatch):
    rows = _rows(300).astype(np.float16)
    query = rows[7].astype(np.float32)
    whole = nearest.Exact(rows)(query, 20)
    monkeypatch.setattr(nearest, "BLOCK", 37)
    parts = nearest.Exact(rows)(query, 20)
    np.testing.assert_array_equal(whole[0], parts[0])
    assert whole[0][0] == 7


def test_large_indexes_are_searched_by_faiss_and_state_their_recall(tmp_path, monkeypatch):
    monkeypatch.setattr(nearest, "EXACT_LIMIT", 1000)
    rows = _rows(3000)
    folder = tmp_path / "index"
    catalog = _write(folder, rows)
    nearest.update(folder, catalog, quiet=True)
    index = open_index(folder)
    assert isinstance(index._search, nearest.Approximate)
    queries, hits = _rows(50, seed=2), 0
    for query in queries:
        found = {match.key for match in index.search(query, 10)}
        best = np.argsort(-(rows @ query))[:10]
        hits += len(found & {f"{row:06d}" for row in best})
    assert index.recall >= 0.9 and hits / 500 >= 0.9
    exact = float(rows[17] @ rows[17])
    assert index.search(rows[17], 1)[0].cosine == pytest.approx(exact, abs=1e-3)


def test_new_rows_are_added_to_faiss_and_stale_ones_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(nearest, "EXACT_LIMIT", 1000)
    rows, more = _rows(3000), _rows(100, seed=5)
    folder = tmp_path / "index"
    nearest.update(folder, _write(folder, rows), quiet=True)
    trained = []
    monkeypatch.setattr(nearest, "_trained", lambda rows: trained.append(rows))
    catalog = _write(folder, more, first=3000)
    # As after an interruption: the new rows are found, by comparing all.
    assert isinstance(open_index(folder)._search, nearest.Exact)
    assert open_index(folder).search(more[3], 1)[0].key == "003003"
    nearest.update(folder, catalog, quiet=True)
    index = open_index(folder)
    assert not trained and isinstance(index._search, nearest.Approximate)
    assert index.search(more[3], 1)[0].key == "003003"


def test_a_file_cut_short_is_no_row(tmp_path):
    _write(tmp_path / "index", _rows(20))
    file = embeddings_file(tmp_path / "index", 0)
    reader = RowReader(read_embeddings(file, 20, WIDTH))
    np.testing.assert_array_equal(reader.read(np.array([3])), _rows(20)[[3]].astype(np.float16))
    with file.open("r+b") as opened:
        opened.truncate(10 * WIDTH * 2 + 1)
    with pytest.raises(InputError, match="ends before row 10; index once more"):
        reader.read(np.array([9, 10]))
    reader.close()


def test_without_faiss_all_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(nearest, "EXACT_LIMIT", 1000)
    monkeypatch.setattr(nearest, "has_faiss", lambda: False)
    rows = _rows(1500)
    nearest.update(tmp_path / "index", _write(tmp_path / "index", rows), quiet=True)
    assert "1500 images are searched one by one; pip install" in capsys.readouterr().out
    index = open_index(tmp_path / "index")
    assert index.recall == 1 and index.search(rows[40], 1)[0].key == "000040"
