"""Gathers rows, notes and decisions of all hosts; each must make the same calls."""

from __future__ import annotations

import json

import jax
import numpy as np
from jax.experimental import multihost_utils


def on_all_hosts(flag: bool) -> bool:
    """Returns whether it is so on all hosts, which then do the same."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).all())


def gather_rows(share: np.ndarray, count: int) -> np.ndarray:
    """Joins the hosts' rows, as many of each, and drops those after the first `count`."""
    if jax.process_count() == 1:
        return share[:count]
    return multihost_utils.process_allgather(share).reshape(-1, share.shape[1])[:count]


def gather_notes(own: dict[int, str]) -> dict[int, str]:
    """Joins the hosts' notes on rows, in the hosts' order."""
    if jax.process_count() == 1:
        return own
    data = np.frombuffer(json.dumps(list(own.items())).encode("ascii"), np.uint8)
    sizes = multihost_utils.process_allgather(np.asarray(len(data)))
    padded = np.pad(data, (0, int(sizes.max()) - len(data)))
    gathered = multihost_utils.process_allgather(padded)
    parts = [json.loads(row[:size].tobytes()) for row, size in zip(gathered, sizes, strict=True)]
    return {int(row): note for part in parts for row, note in part}
