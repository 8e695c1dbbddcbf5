"""Describes how long a run will take, from a given step time or from the planner's estimates."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clip_jax.text import read_json
from experiments.config.run import TrainConfig

# Written by `python -m benchmarks accelerator`; a checkout has it, an installed package has not.
ESTIMATES = Path(__file__).parents[2] / "docs" / "accelerators.json"
TRAINING = "train "
# JAX's names of TPUs, by the generation in the name of a slice.
KINDS = {
    "v4": ("TPU v4",),
    "v5e": ("TPU v5 lite", "TPU v5e"),
    "v5p": ("TPU v5", "TPU v5p"),
    "v6e": ("TPU v6 lite", "TPU v6e"),
}


def describe_hours(config: TrainConfig, step_seconds: float | None, devices: Sequence[Any]) -> str:
    """Returns the expected hours of a whole run and where they come from.

    step_seconds: given by the user, and then all that counts. Otherwise the step is looked up in
    ESTIMATES: the row of these devices, or those of other slices, which are named.
    """
    if step_seconds is not None:
        return _hours(config, step_seconds, "by --step-seconds")
    found = estimates(config)
    for topology, estimate in found.items():
        if is_slice(topology, devices):
            source = f"by docs/{ESTIMATES.name} for {topology}, this slice{estimate.differs}"
            return _hours(config, estimate.seconds, source)
    if found:
        others = [
            _hours(
                config, estimate.seconds,
                f"by docs/{ESTIMATES.name} for {topology}, not these devices{estimate.differs}",
            )
            for topology, estimate in found.items()
        ]  # fmt: skip
        return "; ".join(others)
    return (
        f"unknown: {config.steps:,} steps, and docs/{ESTIMATES.name} has none of this config; "
        "--step-seconds=S of python -m experiments.plan"
    )


class Estimate(NamedTuple):
    """seconds: of a step. differs: ", with ..." of settings that this config has otherwise."""

    seconds: float
    differs: str


def estimates(config: TrainConfig) -> dict[str, Estimate]:
    """Returns a step's estimates by slice; {} for a config that was not compiled.

    A row is of an experiment file; this config's step is the same where model, batch and computing
    are, and where it is cut alike: what differs there is named.
    """
    found: dict[str, Estimate] = {}
    if not ESTIMATES.is_file():
        return found
    for row in read_json(ESTIMATES)["rows"]:
        ms = (row["after"] or {}).get("ms")
        if ms is None or not row["program"].startswith(TRAINING):
            continue
        if _step_of(program_config(row["program"])) == _step_of(config):
            found[row["slice"]] = Estimate(ms / 1000, _difference(row["after"], config))
    return found


def _difference(after: Mapping[str, Any], config: TrainConfig) -> str:
    own = {"mesh.fsdp": config.mesh.fsdp, "grad_accum_steps": config.grad_accum_steps}
    compiled = after.get("settings", {})
    others = [
        f"config.{key}={compiled[key]}"
        for key, value in own.items()
        if compiled.get(key, value) != value
    ]
    return f", with {' and '.join(others)}" if others else ""


def program_config(program: str) -> TrainConfig:
    """Returns the experiment of a row: "train ruclip-vit-base-patch16-224", "train 350M"."""
    name = program.removeprefix(TRAINING).lower().replace("-", "_").replace(".", "_")
    name = name if name.startswith("ruclip") else f"rudolph_{name}"
    return importlib.import_module(f"experiments.configs.{name}").train_config()


def is_slice(topology: str, devices: Sequence[Any]) -> bool:
    """Returns whether devices are as many chips of the kind as a slice, "v5e:16x16", has."""
    generation, _, sides = topology.partition(":")
    chips = math.prod(int(side) for side in sides.split("x"))
    return len(devices) == chips and devices[0].device_kind in KINDS.get(generation, ())


def _step_of(config: TrainConfig) -> tuple[Any, ...]:
    return config.objective, config.model, config.compute, config.data.batch_size


def _hours(config: TrainConfig, step_seconds: float, source: str) -> str:
    hours = config.steps * step_seconds / 3600
    return (
        f"{hours:,.1f} of {config.steps:,} steps of {step_seconds:.4g} s, {source}, "
        "evaluations apart"
    )
