"""Checks what all processes of a run must agree on: versions of libraries, and the time."""

from __future__ import annotations

import json
import platform
import time
from importlib import metadata

from clip_jax.cli import DISTRIBUTION
from clip_jax.errors import InputError
from experiments.distributed.processes import Processes

# What a step, its data and its checkpoints are made with.
LIBRARIES = (
    DISTRIBUTION, "jax", "jaxlib", "libtpu", "numpy", "flax", "optax", "orbax-checkpoint",
    "tensorstore", "grain", "array-record", "tensorflow-datasets", "sentencepiece", "pillow",
)  # fmt: skip
# Signed requests to a bucket may be off by minutes; dates of a run's lines should not be.
MOST_SKEW_SECONDS = 30.0


def library_versions() -> dict[str, str]:
    """Returns the version of Python and of each library, "none" for one that is not there."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    return found


def check_versions(processes: Processes) -> str:
    """Raises InputError, everywhere, unless all processes have the same versions."""
    replies = processes.gather(json.dumps(library_versions()))
    versions = [json.loads(reply) for reply in replies]
    for index, mine in enumerate(versions):
        for name, version in versions[0].items():
            if mine.get(name) != version:
                raise InputError(
                    f"process {index} has {name} {mine.get(name)}, process 0 has {version}; "
                    "expected the same versions on all: install from one list (pip freeze)"
                )
    return ", ".join(f"{name} {versions[0][name]}" for name in ("python", "jax", DISTRIBUTION))


def check_clocks(processes: Processes) -> str:
    """Raises InputError, everywhere, where clocks differ by more than MOST_SKEW_SECONDS."""
    if processes.count == 1:
        return "one process"
    processes.barrier("clocks")  # all read theirs as they are let go
    times = [float(reply) for reply in processes.gather(repr(time.time()))]
    skews = [abs(each - times[0]) for each in times]
    worst = max(range(len(skews)), key=skews.__getitem__)
    if skews[worst] > MOST_SKEW_SECONDS:
        raise InputError(
            f"the clock of process {worst} is {skews[worst]:.0f} s off that of process 0; expected "
            f"at most {MOST_SKEW_SECONDS:g}: set it, by NTP say"
        )
    return f"at most {max(skews):.1f} s apart"
