"""Finds the step to resume from; refuses a workdir whose run differs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import jax

from clip_jax.errors import InputError
from experiments.config.renamed import current_names
from experiments.config.run import TrainConfig, default_config, flatten

if TYPE_CHECKING:
    from experiments.training.checkpoint import Checkpoints

# What may differ between a checkpoint's config and the one that resumes it: how a run is carried
# out and reported, never what it computes.
RESUMABLE = (
    "log_every", "checkpoint_every", "keep_checkpoints", "evaluate_every", "evaluators",
    "evaluation_sets", "best_metric", "best_mode", "early_stop", "final_model",
    "watchdog_seconds", "report_to", "evaluation_images", "mesh", "parallel",
    "compute.remat", "compute.unroll", "compute.fused_attention",
    "data.directory", "data.threads", "data.log_ids", "data.vocabulary_sample",
)  # fmt: skip


def step_to_resume(checkpoints: Checkpoints, config: TrainConfig) -> int:
    """The step to resume from, 0 for a fresh run; InputError where the folder's run differs."""
    step = checkpoints.latest_step()
    if step is None:
        return 0
    # Through JSON, as the saved one went: tuples become lists.
    wanted = flatten(json.loads(json.dumps(config.to_dict())))
    saved = current_names(flatten(checkpoints.read_config(step)))
    # Fields that are newer than the checkpoint: their defaults change nothing. A model's own say
    # what its saved config meant, which `TrainConfig.from_saved` knows.
    usual = flatten(json.loads(json.dumps(default_config(config.objective).to_dict())))
    saved = {key: value for key, value in usual.items() if not key.startswith("model.")} | saved
    saved_steps, wanted_steps = saved.pop("steps"), wanted.pop("steps")
    for key in sorted(saved.keys() | wanted.keys()):
        if key.startswith(RESUMABLE) or saved.get(key) == wanted.get(key):
            continue
        raise InputError(
            f"{checkpoints.folder.parent}: holds a run with config.{key} = {saved.get(key)!r}, "
            f"not {wanted.get(key)!r}; name another --workdir, or the same config to resume"
        )
    # After the others: a recipe that differs in more than its length needs another folder.
    _check_steps(checkpoints, step, config, saved_steps, wanted_steps)
    return step


def _check_steps(
    checkpoints: Checkpoints, step: int, config: TrainConfig, saved: int, wanted: int
) -> None:
    """Lets a run become longer, or as short as the step that it has reached.

    The schedule of learning rates is that of the new length from here on.
    """
    if wanted == saved:
        return
    workdir = checkpoints.folder.parent
    if wanted < step:
        raise InputError(
            f"{workdir}: config.steps is {wanted}, but the run has reached step {step}; expected "
            f"{step} or more; python -m experiments.model {workdir} OUT --step=N writes the model "
            "of an earlier checkpoint"
        )
    if jax.process_index() == 0:
        print(
            f"config.steps was {saved} and is {wanted}: from step {step} on learning rates follow "
            f"the {config.optim.schedule!r} schedule of {wanted} steps",
            file=sys.stderr,
        )
