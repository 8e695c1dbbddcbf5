"""Whether a run's folder can be gone on with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clip_jax.errors import InputError
from experiments.checkpoint import Checkpoints
from experiments.config import TrainConfig

# What may differ between a checkpoint's config and the one that resumes it: how a run is carried
# out and reported, never what it computes.
RESUMABLE = (
    "log_every", "checkpoint_every", "keep_checkpoints", "evaluate_every", "evaluators", "mesh",
    "compute.remat", "compute.unroll", "data.directory", "data.in_memory", "data.threads",
)  # fmt: skip


def step_to_resume(checkpoints: Checkpoints, config: TrainConfig) -> int:
    """The step to resume from, 0 for a fresh run; InputError where the folder's run differs."""
    step = checkpoints.latest_step()
    if step is None:
        return 0
    saved, wanted = _flat(checkpoints.read_config(step)), _flat(config.to_dict())
    for key in sorted(saved.keys() | wanted.keys()):
        if key.startswith(RESUMABLE) or saved.get(key) == wanted.get(key):
            continue
        raise InputError(
            f"{checkpoints.folder.parent}: holds a run with config.{key} = {saved.get(key)!r}, "
            f"not {wanted.get(key)!r}; name another --workdir, or the same config to resume"
        )
    return step


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
