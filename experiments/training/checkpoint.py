"""Checkpoints of a training run; nothing else touches Orbax's manager.

A step's folder holds `params`, `train` (optimiser, step, random key, skipped steps, averages),
`config`, and `checksums` of all of these, which are compared when they are restored. The data need
no state: a batch follows from the step alone. Orbax writes beside and renames, in a bucket it
writes `commit_success.txt` last, so a folder that an interruption left unfinished is never picked
up. Nothing of the mesh is stored with an array: it is restored to any requested sharding.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import checkpoint_managers as policies

from clip_jax import digests, tree_checksums
from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.paths import absolute, as_path
from experiments.cli.exit_status import PeerLostError
from experiments.training.interrupts import HeldInterrupts
from experiments.training.state import step_of
from experiments.workdir.storage_errors import storage_errors

# Each item: how it is written, how it is read.
_ARRAYS = (ocp.args.PyTreeSave, ocp.args.PyTreeRestore, ocp.PyTreeCheckpointHandler)
_JSON = (ocp.args.JsonSave, ocp.args.JsonRestore, ocp.JsonCheckpointHandler)
_ITEMS = {"params": _ARRAYS, "train": _ARRAYS, "config": _JSON, tree_checksums.ITEM: _JSON}


class Checkpoints:
    """The checkpoints in one folder; use as a context manager, which waits for writes to end.

    With several processes each has one of these on the same folder, and all of them call `save`,
    `restore` and the end of the context together.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: int = 2,
        best_metric: str = "",
        best_mode: str = "highest",
        read_only: bool = False,
    ) -> None:
        """keep: so many of the newest. best_metric: the one with the best value is retained too.

        Functions in `before_save` are called before a checkpoint is begun: what they write is there
        whenever the checkpoint is.
        read_only: a folder that is not there raises InputError, and nothing in it is changed.
        """
        # Orbax logs every step, and pages of traces of errors that it also raises.
        absl_logging.set_verbosity(absl_logging.FATAL)
        logging.getLogger("jax._src.distributed").setLevel(logging.ERROR)
        self.folder = absolute(as_path(folder))
        self._best_metric = best_metric
        self._files: Mapping[str, bytes] = {}
        self.before_save: list[Callable[[], None]] = []
        if read_only and not self.folder.is_dir():
            raise InputError(f"{folder}: no checkpoints here; expected a run's checkpoints/")
        # Named one by one, processes wait for each other by way of the coordination service, not
        # by a collective, which in a thread of its own would cross the ones of a step.
        together = ocp.options.MultiprocessingOptions(
            active_processes=set(range(jax.process_count()))
        )
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        for name, (save, restore, handler_type) in _ITEMS.items():
            handler = handler_type(multiprocessing_options=together)
            registry.add(name, save, handler)
            registry.add(name, restore, handler)
        options: dict[str, Any] = {"preservation_policy": policies.LatestN(keep)}
        if best_metric:
            lowest = best_mode == "lowest"
            worst = math.inf if lowest else -math.inf

            def value(metrics: Mapping[str, float]) -> float:
                return metrics.get(best_metric, worst)

            best = policies.BestN(
                get_metric_fn=value,
                reverse=lowest,
                n=1,
                keep_checkpoints_without_metrics=False,
            )
            options = {
                "preservation_policy": policies.AnyPreservationPolicy(
                    [policies.LatestN(keep), best]
                ),
                "best_fn": value,
                "best_mode": "min" if lowest else "max",
            }
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._manager = ocp.CheckpointManager(
                str(self.folder),
                handler_registry=registry,
                options=ocp.CheckpointManagerOptions(
                    save_decision_policy=policies.FixedIntervalPolicy(1),
                    cleanup_tmp_directories=not read_only,
                    read_only=read_only,
                    create=False,
                    multiprocessing_options=together,
                    **options,
                ),
            )
        except OSError as error:
            raise InputError(f"{folder}: cannot hold checkpoints ({error})") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, _: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, PeerLostError):
            return  # the end of a write would wait for that process
        with self._storage_errors():
            self._manager.close()

    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def metrics(self, step: int) -> dict[str, float]:
        """The metrics saved with a step: the run's `best_metric`, where it was evaluated."""
        return dict(self._manager.metrics(step) or {})

    def best_step(self) -> int | None:
        """The step with the best value of `best_metric`, None where none has one."""
        return self._manager.best_step() if self._best_metric else None

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        config: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Starts writing a state (see `state.py`); returns once its arrays are copied.

        metrics: of an evaluation of this very state. Raises StorageError where the disk takes no
        more, of this state or the one before, and InputError for a state of another step.
        """
        self._check_step(step, state)
        with self._storage_errors():
            for write in self.before_save:
                write()
        train = {key: value for key, value in state.items() if key != "params"}
        best = (metrics or {}).get(self._best_metric, math.nan)
        record = tree_checksums.record(state, config, self._files)
        # Interrupted in here the manager would count a step that is never written.
        with self._storage_errors(), HeldInterrupts():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.PyTreeSave(state["params"]),
                    train=ocp.args.PyTreeSave(train),
                    config=ocp.args.JsonSave(dict(config)),
                    checksums=ocp.args.JsonSave(record),
                ),
                metrics=None if math.isnan(best) else {self._best_metric: best},
                force=True,
            )

    def has_metric(self, step: int) -> bool:
        """Returns whether a complete checkpoint has a value of `best_metric`."""
        return self._best_metric in (self._manager.metrics(step) or {})

    def add_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds `best_metric` to a complete checkpoint that was saved before its evaluation ended.

        Each process calls it, the first one before the others, which then find it there.
        """
        name = self._best_metric
        known = self._manager.metrics(step) or {}
        if name not in metrics or math.isnan(metrics[name]):
            return
        if name not in known:
            file = self.folder / str(step) / ocp.checkpoint_manager.METRIC_ITEM_NAME
            text = json.dumps({**known, name: metrics[name]})
            with self._storage_errors():
                replace_file(file / file.name, text)
        self._manager.reload()

    def _storage_errors(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors(self.folder.parent, lambda: last_good(self.folder))

    def look(self) -> None:
        """Raises StorageError if the last writing has failed; waits for nothing."""
        if not self._manager.is_saving_in_progress():
            self.wait()

    def wait(self) -> None:
        """Waits until the last save is complete."""
        with self._storage_errors():
            self._manager.wait_until_finished()

    def bind(self, files: Mapping[str, bytes], step: int | None) -> None:
        """Takes files that lie beside the checkpoints, and belong to each that is saved.

        step: whose checkpoint is resumed, if any; InputError where it had other files.
        """
        self._files = dict(files)
        if step:
            self._compare(step, lambda record: tree_checksums.file_faults(record, files))

    def read_config(self, step: int) -> dict[str, Any]:
        """The config that a step was saved with."""
        config = self._read(step, config=ocp.args.JsonRestore()).config
        self._compare(step, lambda record: tree_checksums.config_faults(record, config))
        return config

    def restore(self, step: int, target: Mapping[str, Any]) -> dict[str, Any]:
        """Reads the state of a step; InputError where the state counts another one.

        target: its shapes and dtypes, with the shardings to restore to.
        """
        train = {key: value for key, value in target.items() if key != "params"}
        restored = self._read(step, params=_reading(target["params"]), train=_reading(train))
        state = {"params": restored.params, **restored.train}
        self._compare_arrays(step, state)
        self._check_step(step, state)
        return state

    def _check_step(self, step: int, state: Mapping[str, Any]) -> None:
        found = step_of(state)
        if found != step:
            raise InputError(
                f"{self.folder / str(step)}: its state is of step {found}; expected that of step "
                f"{step}; remove the folder to resume from an earlier checkpoint"
            )

    def param_shapes(self, step: int) -> dict[str, Any]:
        """Shapes and dtypes of a step's parameters, as they were saved."""
        found = self._manager.item_metadata(step).params
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(found))

    def restore_params(
        self, step: int, target: Mapping[str, Any], patterns: Sequence[str] = (".*",)
    ) -> dict[str, Any]:
        """The parameters whose names a pattern matches whole, "visual/.*" say, and no others.

        target: shapes, dtypes and maybe shardings, of all parameters or more. A pattern that
        names nothing in it, and a parameter that the step has not or has in another shape, raise
        InputError. Optimiser state is not read.
        """
        saved = flatten_dict(self.param_shapes(step), sep="/")
        wanted = flatten_dict(dict(target), sep="/")
        for pattern in patterns:
            if not any(re.fullmatch(pattern, name) for name in wanted):
                raise InputError(
                    f"pattern {pattern!r} names no parameter; names are such as "
                    f"{', '.join(list(wanted)[:3])}"
                )
        chosen = {
            name: leaf
            for name, leaf in wanted.items()
            if any(re.fullmatch(pattern, name) for pattern in patterns)
        }
        for name, leaf in chosen.items():
            found = list(saved[name].shape) if name in saved else "no such parameter"
            if found != list(leaf.shape):
                raise InputError(
                    f"{self.folder / str(step)}: {name} is {found}; expected {list(leaf.shape)}"
                )
        tree = unflatten_dict(chosen, sep="/")
        params = self._read(step, params=_reading(tree, partial_restore=True)).params
        self._compare_arrays(step, {"params": params})
        return params

    def restore_averages(self, step: int, target: Mapping[str, Any]) -> dict[str, Any]:
        """The averages (`optim.ema`) of a step; the rest of the optimiser's state is not read.

        target: shapes and dtypes of the trained parameters.
        """
        train = _reading({"ema": dict(target)}, partial_restore=True)
        averages = self._read(step, train=train).train["ema"]
        self._compare_arrays(step, {"ema": averages})
        return averages

    def _read(self, step: int, **items: Any) -> Any:
        """Restores items; damaged files raise InputError."""
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (MemoryError, jax.errors.JaxRuntimeError):
            raise  # no memory: the command line proposes what to try
        except Exception as error:  # Orbax's and TensorStore's have no common type
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{self.folder / str(step)}: cannot be read ({reason}); {tree_checksums.REMEDY}"
            ) from error

    def _compare_arrays(self, step: int, state: Mapping[str, Any]) -> None:
        def faults(record: Mapping[str, Any]) -> Iterator[str]:
            return tree_checksums.checksum_faults(record, tree_checksums.checksums(state))

        self._compare(step, faults)

    def _compare(self, step: int, faults: Callable[[Mapping[str, Any]], Iterator[str]]) -> None:
        folder = self.folder / str(step)
        record = tree_checksums.read_record(folder) if digests.should_verify() else None
        for fault in faults(record) if record else ():
            raise InputError(f"{folder}: {fault}")


def last_good(folder: Path) -> str:
    """Returns the path of the newest complete checkpoint of a folder, for messages."""
    try:
        done = ocp.utils.checkpoint_steps(str(folder)) if folder.is_dir() else []
    except OSError as error:  # of a bucket that is no longer to be read
        return f"unknown ({error.strerror or error})"
    return str(folder / str(max(done))) if done else "there is none"


def _reading(target: Any, **options: Any) -> ocp.args.PyTreeRestore:
    how = ocp.checkpoint_utils.construct_restore_args(target)
    return ocp.args.PyTreeRestore(item=target, restore_args=how, **options)


def abstract_state(state: Any) -> Any:
    """Shapes, dtypes and shardings of a state, to restore into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
