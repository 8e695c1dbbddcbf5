"""Peers that do the same: opened, checked to agree, and given turns of about the same length."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.options import Options
from benchmarks.peer import Peer, Timing, alternate
from benchmarks.result import Row
from clip_jax.errors import InputError


class Contender(NamedTuple):
    """module: of `peers`. how: arguments of its `open`, besides those of all. variables: of its
    environment, besides ours.
    """

    module: str
    dtype: str
    how: Mapping[str, object]
    variables: Mapping[str, str] | None = None


class Contest(NamedTuple):
    """task: what is timed, with the argument `count`. units: of work in one count. count: (peer)
    -> how often in a turn, after which the peer is warm. answer: (peer) -> what must agree.
    apart: (name, the first's answer, its own) -> the drift; InputError where that is too large.
    before: counts of the task that a peer does before each turn and that are not timed.
    """

    task: str
    units: float
    count: Callable[[Peer], int]
    answer: Callable[[Peer], Any]
    apart: Callable[[str, Any, Any], float]
    before: int = 0


def opened(
    stack: ExitStack, contenders: Mapping[str, Contender], options: Options, **shared: Any
) -> dict[str, Peer]:
    """A peer for each, until the stack ends. shared: arguments of everybody's `open`."""
    return {
        name: _open(stack, contender, options, shared)[0] for name, contender in contenders.items()
    }


def beside_the_first(
    contest: Contest, contenders: Mapping[str, Contender], options: Options, **shared: Any
) -> tuple[list[Row], dict[str, Any]]:
    """Rows without roofs, and what each peer's `open` answered.

    Each is opened and timed beside the first, two at a time: all together would not fit the memory
    of a laptop.
    """
    (base, first), *others = contenders.items()
    rows, rates, values = [], [], {}
    with ExitStack() as stack:
        base_peer, values[base] = _open(stack, first, options, shared)
        expected, counts = contest.answer(base_peer), {base: contest.count(base_peer)}
        for name, contender in others:
            with ExitStack() as beside:
                peer, values[name] = _open(beside, contender, options, shared)
                apart = contest.apart(name, expected, contest.answer(peer))
                peers = {base: base_peer, name: peer}
                counts[name] = contest.count(peer)
                timings = alternate(peers, contest.task, counts, options.rounds, contest.before)
            rates.append(_rates(timings[base], contest))
            rows.append(
                Row(
                    name, *_rates(timings[name], contest), rates[-1], drift=apart,
                    peak=timings[name].peak,
                )
            )  # fmt: skip
    middle = (median(found) for found in zip(*rates, strict=True))
    return [Row(base, *middle, peak=timings[base].peak), *rows], values


def _open(
    stack: ExitStack, contender: Contender, options: Options, shared: Mapping[str, Any]
) -> tuple[Peer, Any]:
    own = options.original_python if contender.module.startswith("original") else None
    peer = stack.enter_context(Peer(contender.module, own, contender.variables))
    return peer, peer.ask("open", **shared, **contender.how).value


def _rates(timing: Timing, contest: Contest) -> tuple[float, float]:
    return contest.units / timing.wall, contest.units / timing.processor


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
        within(tolerance[contender.dtype], drifts[name], f"{name}: {what}", f"those of {base}", of)
    return drifts


def within(most: float, apart: float, found: str, expected: str, of: str) -> None:
    """InputError where a drift is larger than `most`, or not a number: nothing is to be timed."""
    if not apart <= most:
        raise InputError(
            f"{found} differ from {expected} by {apart:.1e} of their {of}; expected at most {most}"
        )


def count_of(peer: Peer, task: str, seconds: float, **arguments: Any) -> int:
    """How often a peer can do a task in so many seconds, at least once. It does it twice, and is
    warm then.
    """
    peer.ask(task, count=1, **arguments)
    return max(int(seconds / peer.ask(task, count=1, **arguments).wall), 1)
