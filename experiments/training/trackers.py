"""Services that show a run's metrics besides its own files: Weights & Biases and MLflow.

Only the first process reports. The id that a service gives a run is kept in the run's folder, so
that a resumed run continues it. Nothing is sent where `WANDB_MODE=offline` says so; MLflow writes
into the folder unless `MLFLOW_TRACKING_URI` names a server.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from clip_jax.atomic_file import replace_file
from clip_jax.errors import InputError
from clip_jax.paths import is_remote

BOARD = "tensorboard"  # written by `MetricsWriter` itself
IDS = "trackers.json"  # by tracker, what it calls this run
IMAGES = "images"  # of evaluations, a folder of the run's
PROJECT = "rudolph-jax"  # unless WANDB_PROJECT or MLFLOW_EXPERIMENT_NAME says otherwise


class Tracker(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None:
        """values: names such as "train/loss" or "validation/accuracy" to numbers."""

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        """name: with slashes, "zero-shot:validation/confusion" say."""

    def close(self) -> None:
        """Waits for what is not written yet."""


def image_file(step: int, name: str) -> str:
    """Returns the path of an image in a run's folder; ":" is in no file's name."""
    return f"{IMAGES}/{name.replace(':', '-')}/{step:08d}.png"


def check_installed(names: tuple[str, ...]) -> None:
    """Raises InputError for a tracker whose package is not there."""
    for name in names:
        if name != BOARD:
            _load(name)


def start_trackers(
    names: tuple[str, ...], folder: Path, config: Mapping[str, Any]
) -> list[Tracker]:
    """Starts the services that are named, or continues what they have of this run.

    folder: of the run. config: by dotted name, shown beside the metrics.
    """
    started: list[Tracker] = []
    file = folder / IDS
    ids = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in names:
        if name == BOARD:
            continue
        make = {"wandb": Wandb, "mlflow": Mlflow}[name]
        tracker = make(folder, config, ids.get(name))
        started.append(tracker)
        ids[name] = tracker.id
        replace_file(file, json.dumps(ids) + "\n")
    return started


class Wandb:
    """A run of Weights & Biases. id: of an earlier start, which is continued."""

    def __init__(self, folder: Path, config: Mapping[str, Any], id: str | None) -> None:
        wandb = _load("wandb")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", folder.name),
            id=id,
            resume="allow",
            dir=None if is_remote(folder) else str(folder),
            config=dict(config),
        )
        # Steps are a metric of their own: a resumed run takes some of them again.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self.id: str = self._run.id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        self._run.log({"step": step, name: _load("wandb").Image(image)})

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """A run of MLflow. id: of an earlier start, which is continued."""

    def __init__(self, folder: Path, config: Mapping[str, Any], id: str | None) -> None:
        mlflow = _load("mlflow")
        server = os.environ.get("MLFLOW_TRACKING_URI")
        if server is None and is_remote(folder):
            raise InputError(
                f"config.report_to names mlflow, whose files cannot be in {folder}; "
                "set MLFLOW_TRACKING_URI"
            )
        if server is None:
            # Files would do, but MLflow wants to be asked for them by this name.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            server = (folder.absolute() / "mlflow").as_uri()
        self._client = mlflow.MlflowClient(server)
        if id is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            known = self._client.get_experiment_by_name(name)
            number = known.experiment_id if known else self._client.create_experiment(name)
            id = self._client.create_run(number, run_name=folder.name).info.run_id
            for key, value in config.items():
                self._client.log_param(id, key, value)
        else:
            self._client.update_run(id, status="RUNNING")
        self.id: str = id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self.id, name, value, step=step)

    def write_image(self, step: int, name: str, image: Image.Image) -> None:
        self._client.log_image(self.id, image, image_file(step, name))

    def close(self) -> None:
        self._client.set_terminated(self.id)


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"config.report_to names {name}, which is not installed; "
            f"`pip install 'rudolph-jax[{name}]'`"
        ) from error
