"""The processes of one run: how they start, exchange values and exit.

They talk through the key-value store of JAX's coordination service, which process 0 keeps. It
needs no collective: a waiting process can still be stopped, and one that is gone blocks nobody.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

# The store has no public name; Orbax and Flax take it from here too.
from jax._src import distributed
from jax.experimental import multihost_utils

from clip_jax.errors import InputError
from experiments.cli.exit_status import SAVED
from experiments.distributed.exit_now import leave

POLL_MILLISECONDS = 500
# Of a barrier before training: the first process may be building a data set.
PATIENCE_SECONDS = 3600
# So that the others come to the same error before the store goes with process 0.
GRACE_SECONDS = 2.0

_RUNS = itertools.count()


def initialize(how: str) -> None:
    """Joins the processes of a run; call it before anything asks JAX for a device.

    how: "none", one process; "auto", what Slurm, Open MPI, GKE or the TPU's metadata say; or
    "HOST:PORT,COUNT,INDEX", with HOST:PORT of process 0, which listens there.
    """
    if how == "none":
        return
    # Its own answer to SIGTERM would take the place of `preemption.py`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**({} if how == "auto" else _explicit(how)))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"--distributed={how}: the processes cannot be joined ({reason})"
        ) from error


def _explicit(how: str) -> dict[str, Any]:
    address, _, numbers = how.partition(",")
    count, _, index = numbers.partition(",")
    right = ":" in address and count.isdecimal() and index.isdecimal()
    if not right or not int(index) < int(count):
        raise InputError(
            f"--distributed={how}; expected auto, none or HOST:PORT,COUNT,INDEX with INDEX from 0 "
            "to COUNT - 1"
        )
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(index),
    }


def exit_process(status: int) -> None:
    """Ends this process now, whatever its other threads are doing."""
    first = jax.distributed.is_initialized() and distributed.global_state.process_id == 0
    leave(status, GRACE_SECONDS if first else 0.0)


def run_and_shutdown(work: Callable[[], int]) -> int:
    """The exit status that work() gives, or 1 after a trace; no process is left waiting."""
    try:
        status = work()
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        status = 1
    if jax.distributed.is_initialized():
        # What all processes come to together they may also wait for together.
        if status not in (0, SAVED):
            exit_process(status)
        jax.distributed.shutdown()
    return status


class Processes:
    """The processes in one call of `train`. With one process every method returns at once.

    Every process makes one and calls its methods in the same order.
    """

    def __init__(self) -> None:
        self.index, self.count = jax.process_index(), jax.process_count()
        self.first = self.index == 0
        # A later run in the same processes must not read an earlier one's words.
        self._prefix = f"rudolph_jax/{next(_RUNS)}"
        self._turns = itertools.count()

    @property
    def _store(self) -> Any:
        return distributed.global_state.client

    def put(self, key: str, value: str, overwrite: bool = False) -> bool:
        """Stores a value; returns False where the key already has one."""
        try:
            self._store.key_value_set(f"{self._prefix}/{key}", value, allow_overwrite=overwrite)
        except jax.errors.JaxRuntimeError as error:
            if "ALREADY_EXISTS" in str(error):
                return False
            raise
        return True

    def get(self, key: str) -> str | None:
        try:
            return self._store.key_value_try_get(f"{self._prefix}/{key}")
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def get_all(self, folder: str) -> dict[str, str]:
        """Last part of the key -> value."""
        pairs = self._store.key_value_dir_get(f"{self._prefix}/{folder}/")
        return {key.rpartition("/")[2]: value for key, value in pairs}

    def wait(self, key: str) -> str:
        """The value, as soon as there is one; signals are heard meanwhile."""
        while True:
            try:
                return self._store.blocking_key_value_get(
                    f"{self._prefix}/{key}", POLL_MILLISECONDS
                )
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def barrier(self, name: str) -> None:
        if self.count > 1:
            self._store.wait_at_barrier(f"{self._prefix}/{name}", PATIENCE_SECONDS * 1000)

    def first_then_others(self, work: Callable[[], Any]) -> Any:
        """work() of the first process, then of the others, which find what it left on disk."""
        name = f"turn/{next(self._turns)}"
        if self.first:
            done = work()
            self.barrier(name)
        else:
            self.barrier(name)
            done = work()
        return done

    def broadcast_from_first(self, work: Callable[[], Any], stopped: type[BaseException]) -> Any:
        """Runs work() on the first process and returns its value on every process.

        It is JSON, and so are the arguments of `stopped`, which is raised everywhere if work
        raises it. Any other error of the first is a RuntimeError of the others.
        """
        if self.count == 1:
            return work()
        key = f"turn/{next(self._turns)}"
        if self.first:
            try:
                value = work()
            except BaseException as error:
                kind = "stopped" if isinstance(error, stopped) else "failed"
                reply = list(error.args) if kind == "stopped" else repr(error)
                self.put(key, json.dumps({kind: reply}))
                raise
            self.put(key, json.dumps({"value": value}))
            return value
        reply = json.loads(self.wait(key))
        if "stopped" in reply:
            raise stopped(*reply["stopped"])
        if "failed" in reply:
            raise RuntimeError(f"process 0 failed: {reply['failed']}")
        return reply["value"]

    def require_shared_folder(self, workdir: Path) -> None:
        """InputError, everywhere, unless all processes see the same folder there."""
        if self.count == 1:
            return
        marker = workdir / ".shared"
        if self.first:
            workdir.mkdir(parents=True, exist_ok=True)
            marker.write_text(os.urandom(8).hex(), encoding="utf-8")
        self.barrier(f"turn/{next(self._turns)}")
        others = self._unlike_first(marker.read_text("utf-8") if marker.exists() else "")
        if self.first:
            marker.unlink()
        if others:
            raise InputError(
                f"{workdir}: process {others[0]} does not see the folder of process 0; expected "
                "--workdir on a file system that all of them share"
            )

    def require_equal(self, what: str, data: bytes) -> None:
        """InputError, everywhere, unless all processes have the same bytes."""
        if self.count > 1 and (others := self._unlike_first(hashlib.sha256(data).hexdigest())):
            raise InputError(
                f"{what} of process {others[0]} is another than that of process 0; expected the "
                "same file for all"
            )

    def gather(self, value: str) -> list[str]:
        """Returns the value of each process, on every process."""
        if self.count == 1:
            return [value]
        turn = f"turn/{next(self._turns)}"
        self.put(f"{turn}/{self.index}", value)
        self.barrier(turn)
        replies = self.get_all(turn)
        return [replies[str(index)] for index in range(self.count)]

    def _unlike_first(self, value: str) -> list[int]:
        """The processes that come with another value than the first."""
        values = self.gather(value)
        return [index for index in range(self.count) if values[index] != values[0]]


def fetch_to_host(tree: Any) -> Any:
    """numpy arrays of a tree that may be spread over processes; all of them must call it.

    Leaf by leaf: a device holds no more than one whole leaf at a time.
    """

    def whole(leaf: jax.Array) -> np.ndarray:
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return np.asarray(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)
