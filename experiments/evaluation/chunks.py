"""Long work a chunk at a time: chunks lie in the cache, where a later run goes on from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.evaluation.array_cache import ArrayCache

CHUNK = 64


def in_chunks(
    cache: ArrayCache | None,
    about: Mapping[str, Any],
    count: int,
    work: Callable[[slice], np.ndarray],
    *,
    chunk: int = CHUNK,
) -> np.ndarray:
    """work(rows) of rows 0 to count, `chunk` at a time, one after another.

    about: what the rows are and how they are made, all of it: chunks are found by it again.
    """
    parts = []
    title = str(about.get("what", ""))
    with tqdm(total=count, desc=title, unit=" rows", disable=None, leave=False) as bar:
        for start in range(0, count, chunk):
            rows = slice(start, min(start + chunk, count))
            asked = {**about, "rows": [rows.start, rows.stop]}
            part = cache.get(asked) if cache else None
            if part is None:
                part = work(rows)
                if cache:
                    cache.put(asked, part)
            parts.append(part)
            bar.update(rows.stop - rows.start)
    return np.concatenate(parts)
