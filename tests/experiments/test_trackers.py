"""Metrics in Weights & Biases, offline, and in MLflow's files: one run, however often resumed."""

import dataclasses
import json
import sys

import pytest

from clip_jax.errors import InputError
from experiments.config.run import TrainConfig, check
from experiments.training.metrics import MetricsWriter, read_metrics
from experiments.training.trackers import IDS, check_installed
from tests.experiments.small_run import CONFIG
from tests.experiments.test_evaluation_images import PNG

FIELDS = {"steps": 5, "optim.learning_rate": 0.1}


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def write(folder, first_step, steps, trackers):
    writer = MetricsWriter(folder, first_step, FIELDS, trackers)
    for step in steps:
        writer.write(step, {"train/loss": step / 10})
    writer.write_image(steps[-1], "zero-shot:test/confusion", PNG)
    writer.close()


def test_mlflow_continues_a_run_in_its_own_files(tmp_path, offline):
    from mlflow import MlflowClient

    write(tmp_path, 0, (1, 2, 3), ("mlflow",))
    write(tmp_path, 2, (3, 4), ("mlflow",))
    client = MlflowClient((tmp_path / "mlflow").as_uri())
    (experiment,) = [one for one in client.search_experiments() if one.name == "rudolph-jax"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == json.loads((tmp_path / IDS).read_text())["mlflow"]
    assert run.info.status == "FINISHED" and run.info.run_name == tmp_path.name
    assert run.data.params == {"steps": "5", "optim.learning_rate": "0.1"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {(one.step, one.value) for one in history} == {(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4)}
    folder = "images/zero-shot-test/confusion"
    images = [one.path for one in client.list_artifacts(run.info.run_id, folder)]
    assert images == [f"{folder}/00000003.png", f"{folder}/00000004.png"]
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert not list((tmp_path / "tensorboard").glob("events.*"))  # it was not asked for


def test_wandb_keeps_its_id_offline(tmp_path, offline):
    write(tmp_path, 0, (1, 2), ("tensorboard", "wandb"))
    id = json.loads((tmp_path / IDS).read_text())["wandb"]
    write(tmp_path, 2, (3,), ("tensorboard", "wandb"))
    assert json.loads((tmp_path / IDS).read_text()) == {"wandb": id}
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(runs) == 2 and all(run.name.endswith(id) for run in runs)
    assert all(list(run.glob("*.wandb")) for run in runs)
    assert all(len(list(run.rglob("confusion*.png"))) == 1 for run in runs)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_what_is_not_known_or_not_installed(monkeypatch):
    with pytest.raises(InputError, match="config.report_to is 'comet'; expected tensorboard, wand"):
        check(dataclasses.replace(CONFIG, report_to=("comet",)))
    monkeypatch.setitem(sys.modules, "wandb", None)
    check_installed(("tensorboard", "mlflow"))
    with pytest.raises(InputError, match=r"names wandb, .*pip install 'rudolph-jax\[wandb\]'"):
        check_installed(("tensorboard", "wandb"))
    assert TrainConfig().report_to == ("tensorboard",)
