"""Peers that do the same: opened, checked to agree, and given turns of about the same length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from benchmarks.options import Options
from benchmarks.peer import Peer
from clip_jax.errors import InputError


class Contender(NamedTuple):
    """module: of `peers`. how: arguments of its `open`, besides those of all."""

    module: str
    dtype: str
    how: Mapping[str, object]


def opened(
    stack: ExitStack, contenders: Mapping[str, Contender], options: Options, **shared: Any
) -> dict[str, Peer]:
    """A peer for each, until the stack ends. shared: arguments of everybody's `open`."""
    peers = {}
    for name, (module, _, how) in contenders.items():
        own = options.original_python if module.startswith("original") else None
        peers[name] = stack.enter_context(Peer(module, own))
        peers[name].ask("open", **shared, **how)
    return peers


def drift(expected: Any, found: Any) -> float:
    """The largest difference of two arrays, as a share of the former's standard deviation."""
    a, b = np.asarray(expected), np.asarray(found)
    return float(np.abs(a - b).max() / a.std())


def agreed(
    contenders: Mapping[str, Contender],
    found: Mapping[str, Any],
    tolerance: Mapping[str, float],
    what: str,
    of: str = "spread",
    measure: Callable[[Any, Any], float] = drift,
) -> dict[str, float]:
    """The drift of each from the first. One beyond its dtype's tolerance raises InputError.

    measure: (expected, found) -> drift, a share `of` something.
    """
    base = next(iter(contenders))
    drifts = {name: measure(found[base], found[name]) for name in contenders}
    for name, contender in contenders.items():
        # Written so that NaN is refused.
        if not drifts[name] <= tolerance[contender.dtype]:
            raise InputError(
                f"{name}: {what} differ from those of {base} by {drifts[name]:.1e} of their "
                f"{of}; expected at most {tolerance[contender.dtype]}"
            )
    return drifts


def count_of(peer: Peer, task: str, seconds: float, **arguments: Any) -> int:
    """How often a peer can do a task in so many seconds, at least once. It does it twice."""
    peer.ask(task, count=1, **arguments)
    return max(int(seconds / peer.ask(task, count=1, **arguments).wall), 1)
