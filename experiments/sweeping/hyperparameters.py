"""A sweep in TensorBoard's HPARAMS tab: a session a run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tensorboardX import SummaryWriter

from experiments.sweeping.results import Row


def write_hyperparameters(folder: Path, rows: Sequence[Row], metrics: Sequence[str]) -> None:
    """Writes the overrides, seed and metrics of each run that did not diverge, all again."""
    shutil.rmtree(folder, ignore_errors=True)
    keys = dict.fromkeys(key for row in rows for key in row.variant.overrides)
    for row in rows:
        chosen = {key: str(row.variant.overrides.get(key, "base")) for key in keys}
        for seed, result in row.results.items():
            values = {name: result.metrics[name] for name in metrics if name in result.metrics}
            if result.error or not values:
                continue
            with SummaryWriter(str(folder / row.variant.folder / f"seed-{seed}")) as writer:
                parameters = {"variant": row.variant.name, "seed": seed, **chosen}
                writer.add_hparams(parameters, values, name=".")
