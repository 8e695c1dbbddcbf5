"""Implementations of one task: check that they agree, then time them in interleaved rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.options import Options
from benchmarks.result import Row
from benchmarks.worker import Timing, Worker, run_interleaved
from clip_jax.errors import InputError


class Implementation(NamedTuple):
    """Say how to start one implementation.

    module: of `benchmarks.workers`.
    dtype: which tolerance and which FLOP rate apply.
    arguments: of its `setup`, besides those that all implementations get.
    environment: variables of its process, besides ours.
    """

    module: str
    dtype: str
    arguments: Mapping[str, object]
    environment: Mapping[str, str] | None = None


class Comparison(NamedTuple):
    """Say what to time and what to check first.

    task: the worker's task, which takes the argument `repeats`.
    work_items: pieces of work in one repeat, such as images.
    repeats: (worker) -> repeats in a timed call; the worker is warm afterwards.
    output: (worker) -> the output to check.
    error: (name, the baseline's output, its own) -> max error; InputError where that is too large.
    warmup: repeats that a worker does before each timed call.
    """

    task: str
    work_items: float
    repeats: Callable[[Worker], int]
    output: Callable[[Worker], Any]
    error: Callable[[str, Any, Any], float]
    warmup: int = 0


def open_workers(
    stack: ExitStack,
    implementations: Mapping[str, Implementation],
    options: Options,
    **shared: Any,
) -> dict[str, Worker]:
    """Start a worker for each, until the stack ends. shared: arguments of every `setup`."""
    return {
        name: _open(stack, implementation, options, shared)[0]
        for name, implementation in implementations.items()
    }


def compare_to_baseline(
    comparison: Comparison,
    implementations: Mapping[str, Implementation],
    options: Options,
    **shared: Any,
) -> tuple[list[Row], dict[str, Any]]:
    """Return rows without roofline, and what each worker's `setup` returned.

    The first implementation is the baseline. Each of the others is timed beside it alone: all
    together would not fit the memory of a laptop.
    """
    (base, first), *others = implementations.items()
    rows, baseline_rates, values = [], [], {}
    with ExitStack() as stack:
        base_worker, values[base] = _open(stack, first, options, shared)
        expected = comparison.output(base_worker)
        repeats = {base: comparison.repeats(base_worker)}
        for name, implementation in others:
            with ExitStack() as pair_stack:
                worker, values[name] = _open(pair_stack, implementation, options, shared)
                error = comparison.error(name, expected, comparison.output(worker))
                repeats[name] = comparison.repeats(worker)
                timings = run_interleaved(
                    {base: base_worker, name: worker},
                    comparison.task,
                    repeats,
                    options.rounds,
                    comparison.warmup,
                )
            baseline_rates.append(_rates(timings[base], comparison))
            rows.append(
                Row(
                    name,
                    *_rates(timings[name], comparison),
                    baseline_rates[-1],
                    max_error=error,
                    peak_bytes=timings[name].peak_bytes,
                )
            )
    medians = (median(rates) for rates in zip(*baseline_rates, strict=True))
    return [Row(base, *medians, peak_bytes=timings[base].peak_bytes), *rows], values


def _open(
    stack: ExitStack, implementation: Implementation, options: Options, shared: Mapping[str, Any]
) -> tuple[Worker, Any]:
    python = options.original_python if implementation.module.startswith("original") else None
    worker = Worker(implementation.module, python, implementation.environment)
    stack.enter_context(worker)
    return worker, worker.call("setup", **shared, **implementation.arguments).value


def _rates(timing: Timing, comparison: Comparison) -> tuple[float, float]:
    return (
        comparison.work_items / timing.wall_seconds,
        comparison.work_items / timing.cpu_seconds,
    )


def max_relative_error(expected: Any, actual: Any) -> float:
    """Return the largest difference, as a share of the expected values' standard deviation."""
    a, b = np.asarray(expected), np.asarray(actual)
    return float(np.abs(a - b).max() / a.std())


def check_agreement(
    implementations: Mapping[str, Implementation],
    outputs: Mapping[str, Any],
    tolerance: Mapping[str, float],
    what: str,
) -> dict[str, float]:
    """Return the max error of each against the first.

    Raises InputError where one exceeds the tolerance of its dtype.
    """
    base = next(iter(implementations))
    errors = {name: max_relative_error(outputs[base], outputs[name]) for name in implementations}
    for name, implementation in implementations.items():
        check_tolerance(
            errors[name], tolerance[implementation.dtype], f"{name}: {what}", f"those of {base}"
        )
    return errors


def check_tolerance(
    error: float,
    tolerance: float,
    actual: str,
    expected: str,
    relative_to: str = "standard deviation",
) -> None:
    """Raise InputError where an error exceeds the tolerance or is NaN: nothing is timed then."""
    if not error <= tolerance:
        raise InputError(
            f"{actual} differ from {expected} by {error:.1e} of their {relative_to}; expected at "
            f"most {tolerance}"
        )


def repeats_for(worker: Worker, task: str, seconds: float, **arguments: Any) -> int:
    """Return how often a worker does a task in so many seconds, at least once.

    Runs it twice, so that the worker is warm afterwards.
    """
    worker.call(task, repeats=1, **arguments)
    return max(int(seconds / worker.call(task, repeats=1, **arguments).wall_seconds), 1)
