"""Checkpoints of a training run; nothing else touches Orbax's manager.

A step's folder holds `params`, `train` (optimiser, step, random key) and `config`. The data need
no state: a batch follows from the step alone. Orbax writes beside and renames, so a folder that an
interruption left unfinished is never picked up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging

from clip_jax.errors import InputError

# Each item: how it is written, how it is read.
_ARRAYS = (ocp.args.PyTreeSave, ocp.args.PyTreeRestore, ocp.PyTreeCheckpointHandler)
_JSON = (ocp.args.JsonSave, ocp.args.JsonRestore, ocp.JsonCheckpointHandler)
_ITEMS = {"params": _ARRAYS, "train": _ARRAYS, "config": _JSON}


class Checkpoints:
    """The checkpoints in one folder; use as a context manager, which waits for writes to end."""

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        absl_logging.set_verbosity(absl_logging.ERROR)
        logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
        self.folder = Path(folder).absolute()
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        for name, (save, restore, handler_type) in _ITEMS.items():
            handler = handler_type()
            registry.add(name, save, handler)
            registry.add(name, restore, handler)
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                handler_registry=registry,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=ocp.checkpoint_managers.LatestN(keep),
                    save_decision_policy=ocp.checkpoint_managers.FixedIntervalPolicy(1),
                    cleanup_tmp_directories=True,
                ),
            )
        except OSError as error:
            raise InputError(f"{folder}: cannot hold checkpoints ({error})") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Starts writing a state (see `train.py`); returns once its arrays are copied."""
        train = {key: value for key, value in state.items() if key != "params"}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                params=ocp.args.PyTreeSave(state["params"]),
                train=ocp.args.PyTreeSave(train),
                config=ocp.args.JsonSave(dict(config)),
            ),
            force=True,
        )

    def read_config(self, step: int) -> dict[str, Any]:
        """The config that a step was saved with."""
        args = ocp.args.Composite(config=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args).config

    def restore(self, step: int, target: Mapping[str, Any]) -> dict[str, Any]:
        """The state of a step. target: its shapes and dtypes, with the shardings to restore to."""
        train = {key: value for key, value in target.items() if key != "params"}
        args = ocp.args.Composite(params=_reading(target["params"]), train=_reading(train))
        restored = self._manager.restore(step, args=args)
        return {"params": restored.params, **restored.train}


def _reading(target: Any) -> ocp.args.PyTreeRestore:
    how = ocp.checkpoint_utils.construct_restore_args(target)
    return ocp.args.PyTreeRestore(item=target, restore_args=how)


def abstract_state(state: Any) -> Any:
    """Shapes, dtypes and shardings of a state, to restore into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
