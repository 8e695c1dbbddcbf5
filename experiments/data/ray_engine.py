"""Writes chunks and codes as tasks of a Ray cluster, which starts those of lost workers again.

Ray is imported only here, and only when it is asked for (extra `ray`).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from clip_jax.errors import InputError
from clip_jax.paths import absolute, as_path
from experiments.cli.exit_status import PeerLostError
from experiments.data.sources.read_plan import ReadPlan, SourceConfig
from experiments.data.sources.schema import SCHEMAS
from experiments.data.sources.shards import ChunkResult, WriteConfig, write_chunk

ENGINE = "ray"
RETRIES = 5  # of a task whose worker is lost, or whose storage fails
AHEAD = 3  # tasks for each slot of the cluster, with the one that runs
CONNECT_SECONDS = 10.0
OBJECT_STORE_BYTES = 100 * 2**20  # of an own cluster: results are small


def parse_engine(text: str) -> str | None:
    """Returns the address in "ray:ADDRESS", "" for "ray" alone, None for ""."""
    if not text:
        return None
    name, _, address = text.partition(":")
    if name != ENGINE or (":" in text and not address):
        raise InputError(f"--engine is {text!r}; expected ray or ray:ADDRESS")
    return address


class RayEngine:
    """A Ray cluster as a context manager: that at an address, or one of this machine's own."""

    def __init__(self, address: str, workers: int) -> None:
        """address: of a running cluster, "auto" for this machine's; "": start one for this call.

        workers: tasks at once of an own cluster; another has as many as it has CPUs.
        """
        self._address, self._workers = address, workers
        self._ray = _import_ray()
        _check_reachable(address)

    def __enter__(self) -> RayEngine:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address:
            settings["address"] = self._address
        else:
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # which would be sent elsewhere
            settings |= {
                "address": "local", "num_cpus": self._workers, "include_dashboard": False,
                "object_store_memory": OBJECT_STORE_BYTES, "_node_ip_address": "127.0.0.1",
            }  # fmt: skip
        try:
            self._ray.init(**settings)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"at {self._address}" if self._address else "can be started"
            reason = " ".join(str(error).split())
            raise InputError(f"--engine: no Ray cluster {where} ({reason})") from error
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    def write(
        self, plan: ReadPlan, numbers: Sequence[int], write_config: WriteConfig, folder: Path
    ) -> Iterator[ChunkResult]:
        """Yields the results of chunks as the cluster's tasks write them."""
        config, folder = _absolute(plan.config), absolute(folder)
        tasks = ((config, plan.chunks[i], write_config, folder, i) for i in numbers)
        yield from self._run(write_chunk, {"num_cpus": 1}, tasks)

    def encode(
        self, shards: Sequence[Path], vqgan: str, image_size: int, form: str, background: str
    ) -> Iterator[None]:
        """Adds codes to shards, a task a shard, on the cluster's accelerators if it has any."""
        if as_path(vqgan).exists():  # and is no name of a published one
            vqgan = str(absolute(as_path(vqgan)))
        tasks = ((absolute(shard), vqgan, image_size, form, background) for shard in shards)
        yield from self._run(_encode, self._accelerator(), tasks)

    def _accelerator(self) -> dict[str, Any]:
        if self._ray.cluster_resources().get("GPU"):
            return {"num_cpus": 1, "num_gpus": 1}
        # A process takes all chips of its host.
        chips = max((node["Resources"].get("TPU", 0) for node in self._ray.nodes()), default=0)
        return {"num_cpus": 1, **({"resources": {"TPU": chips}} if chips else {})}

    def _run(
        self, function: Any, needs: Mapping[str, Any], tasks: Iterator[tuple[Any, ...]]
    ) -> Iterator[Any]:
        task = self._ray.remote(
            max_retries=RETRIES, retry_exceptions=[OSError], **needs
        )(function)  # fmt: skip
        running: set[Any] = set()
        while True:
            # No more than this, so that the chunks of all the rest are not held as messages.
            most = AHEAD * max(int(self._ray.cluster_resources().get("CPU", 0)), 1)
            running |= {task.remote(*t) for t in islice(tasks, max(most - len(running), 0))}
            if not running:
                return
            (ready, *_), _ = self._ray.wait(list(running))
            running.remove(ready)
            yield self._get(ready)

    def _get(self, ready: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ready)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, InputError | OSError):
                raise cause from error
            reason = str(cause).splitlines()[-1:] or [""]
            raise PeerLostError(
                f"a task of the Ray cluster failed: {type(cause).__name__}: {reason[0]}; each of "
                "its machines needs this version of rudolph-jax, SOURCE and OUT"
            ) from error
        except errors.RayError as error:
            raise PeerLostError(
                f"a task of the Ray cluster was lost {RETRIES + 1} times "
                f"({type(error).__name__}); the same command resumes it"
            ) from error


def _absolute(config: SourceConfig) -> SourceConfig:
    """Returns the same source for workers, whose current folder is another."""
    field = "data_dir" if config.data_dir else "source"
    place = absolute(as_path(getattr(config, field)))
    return dataclasses.replace(config, **{field: str(place)})


def _encode(shard: Path, vqgan: str, image_size: int, form: str, background: str) -> None:
    if shard.exists():  # else a worker that was then lost had replaced it
        _coder(vqgan, image_size, form, background).replace(shard, threads=1)


@functools.lru_cache(maxsize=1)
def _coder(vqgan: str, image_size: int, form: str, background: str) -> Any:
    from experiments.data.code_writer import CodeWriter  # JAX is for these alone

    return CodeWriter(vqgan, image_size, SCHEMAS[form], background)


def _check_reachable(address: str) -> None:
    """Raises InputError where nothing answers at HOST:PORT: Ray itself tries for minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):(\d{1,5})", address, re.ASCII)
    if not found:
        return
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"--engine: no Ray cluster at {address} ({error})") from error


def _import_ray() -> ModuleType:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise InputError(
            "--engine=ray needs the package 'ray', which is not installed: "
            "pip install 'rudolph-jax[ray]'"
        ) from error
    return ray
