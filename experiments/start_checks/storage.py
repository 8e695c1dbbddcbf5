"""Checks that a run's folder can be written, and has room for the checkpoints that are kept."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Any

import jax

from clip_jax.errors import InputError
from clip_jax.paths import is_remote
from experiments.config.run import TrainConfig
from experiments.objectives.objective import Objective
from experiments.training.optimizer import make_optimizer
from experiments.training.trainable import partition, trainable_mask


def check_writable(workdir: Path, process_index: int = 0) -> str:
    """Writes, reads and removes a file there; raises InputError where that fails.

    The folder is made, and stays: another process may be writing there.
    """
    probe = workdir / f".preflight-{process_index}-{os.urandom(4).hex()}"
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe.write_text("written", encoding="utf-8")
        back = probe.read_text(encoding="utf-8")
        probe.unlink()
    except OSError as error:
        raise InputError(f"{workdir}: cannot be written ({error.strerror})") from error
    if back != "written":
        raise InputError(f"{workdir}: a file that was written reads otherwise; expected the same")
    return f"{workdir}: written and read"


def checkpoint_bytes(config: TrainConfig, objective: Objective) -> int:
    """Returns the size of a checkpoint: parameters, optimiser state and averages, uncompressed."""
    params = objective.abstract_params
    trained = partition(params, trainable_mask(params, config.optim))[0]
    optimizer = make_optimizer(config.optim, config.steps, config.extensions)
    state = [params, jax.eval_shape(optimizer.init, trained)]
    return sum(map(_bytes, state)) + (_bytes(trained) if config.optim.ema else 0)


def check_space(config: TrainConfig, objective: Objective, workdir: Path) -> str:
    """Raises InputError where a local disk has no room for the checkpoints still to be written.

    One more than are kept: the oldest goes when the newest is complete. And the final model.
    """
    size = checkpoint_bytes(config, objective)
    saves = config.steps // config.checkpoint_every + 1 if config.checkpoint_every else 1
    kept = min(config.keep_checkpoints + bool(config.best_metric) + 1, saves)
    if is_remote(workdir):
        return f"{kept} checkpoints of {gigabytes(size)} at most; a bucket has no limit"
    folder = workdir / "checkpoints"
    there = sum(file.name.isdecimal() for file in folder.iterdir()) if folder.is_dir() else 0
    needed = max(kept - there, 0) * size + _bytes(objective.abstract_params)
    existing = next(place for place in (workdir, *workdir.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{workdir}: {gigabytes(free)} are free; expected {gigabytes(needed)}: "
            f"{max(kept - there, 0)} checkpoints of {gigabytes(size)} and the model; make room, or "
            "lower config.keep_checkpoints"
        )
    return f"{gigabytes(free)} free, {gigabytes(needed)} needed: {kept} of {gigabytes(size)}"


def gigabytes(size: float) -> str:
    return f"{size / 1e9:.3f} GB"


def _bytes(tree: Any) -> int:
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
