import dataclasses
import math
import os
import random
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clip_jax
from clip_jax import InputError
from experiments import train as train_module
from experiments.cli.exit_status import DivergedError
from experiments.config.run import MeshConfig
from experiments.objectives import make_objective
from experiments.train import train
from experiments.training import partitioning
from experiments.training.metrics import read_metrics

ONE = jax.devices()[:1]


def assert_bit_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of eight steps that nothing disturbed, made once a module."""
    runs = {}

    def run(config):
        if config not in runs:
            folder = tmp_path_factory.mktemp("finished")
            runs[config] = (train(config, folder, ONE), folder)
        return runs[config]

    return run


def test_a_run_leaves_metrics_tokenizer_and_a_loadable_model(finished, train_config):
    run, folder = finished(train_config)
    rows = read_metrics(folder)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert all(math.isfinite(row["train/loss"]) for row in rows)
    assert rows[0]["train/learning_rate"] == 0.0
    assert rows[2]["train/learning_rate"] == pytest.approx(1e-3)
    assert list((folder / "tensorboard").glob("events*"))
    clip = clip_jax.load(run.model_folder)
    assert clip.config == train_config.model
    assert_bit_equal(clip.params, run.model.params)
    text = clip.processor(text=["рукописная цифра семь"])["input_ids"]
    np.testing.assert_allclose(clip.encode_text(text), run.model.encode_text(text), atol=1e-5)


def test_interrupted_run_resumes_bit_equal(finished, train_config, tmp_path, monkeypatch):
    expected, folder = finished(train_config)
    real = train_module.partitioning.put_batch
    calls = []

    def interrupt_at_sixth(batch, mesh):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(batch, mesh)

    with monkeypatch.context() as patch:
        patch.setattr(train_module.partitioning, "put_batch", interrupt_at_sixth)
        with pytest.raises(KeyboardInterrupt):
            train(train_config, tmp_path, ONE)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["3", "5"]
    resumed = train(train_config, tmp_path, ONE)
    assert_bit_equal(resumed.model.params, expected.model.params)
    assert read_metrics(tmp_path) == read_metrics(folder)


def test_killed_at_a_random_step_resumes_bit_equal(finished, train_config, tmp_path):
    config = dataclasses.replace(train_config, checkpoint_every=1)
    expected, _ = finished(train_config)
    (tmp_path / "config.py").write_text(
        "from experiments.config.run import TrainConfig\n"
        "def get_config():\n"
        f"    return TrainConfig.from_dict({config.to_dict()!r}).to_config_dict()\n"
    )
    command = [
        sys.executable, "-m", "experiments.train",
        f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    stop_after = random.randrange(1, 6)
    # The last of two flags counts.
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    alone = {**os.environ, "XLA_FLAGS": flags}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=alone)
    try:
        deadline = time.monotonic() + 400  # on a busy machine
        while time.monotonic() < deadline and process.poll() is None:
            if len(read_metrics(tmp_path / "run")) >= stop_after:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    done = len(read_metrics(tmp_path / "run"))
    assert done >= stop_after
    # The very command again; its model is the one that was never disturbed.
    finish = subprocess.run(command, capture_output=True, text=True, check=True, env=alone)
    assert finish.stdout == f"model: {tmp_path / 'run' / 'model'}\n"
    resumed = clip_jax.load(tmp_path / "run" / "model")
    assert_bit_equal(resumed.params, expected.model.params)


@pytest.mark.parametrize(
    "mesh",
    # A single step over several meshes is in test_step.py.
    [MeshConfig(), pytest.param(MeshConfig(data=2, fsdp=4), marks=pytest.mark.slow)],
)
def test_one_device_and_eight_agree(finished, train_config, tmp_path, mesh):
    _, folder = finished(train_config)
    train(dataclasses.replace(train_config, mesh=mesh), tmp_path)
    found, expected = (
        [row["train/loss"] for row in read_metrics(where)] for where in (tmp_path, folder)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("checkpoint_every", "message", "good"),
    [(2, "step 4: loss is nan", 2), (1, "step 3: parameters are not finite", 2)],
)
def test_nan_stops_the_run_and_names_the_last_good_checkpoint(
    train_config, tmp_path, monkeypatch, checkpoint_every, message, good
):
    """Adam's updates poison a weight as soon as the rate is at its peak, at step 3 of 8."""
    real = train_module.make_optimizer

    def poisoned(*arguments):
        optimizer = real(*arguments)

        def update(grads, state, params):
            updates, state = optimizer.update(grads, state, params)
            largest = jnp.abs(updates["visual"]["projection"]).max()
            bad = jnp.where(largest > 7e-4, jnp.nan, updates["logit_scale"])
            return {**updates, "logit_scale": bad}, state

        return optax.GradientTransformation(optimizer.init, update)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "make_optimizer", poisoned)
        with pytest.raises(DivergedError) as caught:
            config = dataclasses.replace(train_config, checkpoint_every=checkpoint_every)
            train(config, tmp_path, ONE)
    assert str(caught.value).startswith(message)
    assert f"last good checkpoint: {tmp_path}/checkpoints/{good};" in str(caught.value)
    assert "\n" not in str(caught.value)
    kept = {int(path.name) for path in (tmp_path / "checkpoints").iterdir()}
    assert max(kept) == good


def test_another_config_is_refused_and_harmless_changes_are_not(finished, train_config):
    _, folder = finished(train_config)
    other = dataclasses.replace(train_config, seed=1)
    with pytest.raises(InputError, match="holds a run with config.seed = 0, not 1"):
        train(other, folder, ONE)
    # Another recipe, shorter too: the folder is named, not the steps.
    with pytest.raises(InputError, match="config.seed = 0, not 1; name another --workdir"):
        train(dataclasses.replace(other, steps=1), folder, ONE)
    harmless = dataclasses.replace(train_config, log_every=2)
    resumed = train(harmless, folder, ONE)
    assert_bit_equal(resumed.model.params, finished(train_config)[0].model.params)


def test_logit_scale_is_clipped(train_config):
    """At ln 100, and nothing else is touched."""
    mesh = partitioning.make_mesh(train_config.mesh)
    project = make_objective(train_config, mesh).post_update
    params = {"text": jnp.full(2, 9.0), "logit_scale": jnp.float32(4.7)}
    projected = project(params)
    assert float(jnp.exp(projected["logit_scale"])) == pytest.approx(100, rel=1e-5)
    assert_bit_equal(projected["text"], params["text"])
    assert_bit_equal(project({"logit_scale": jnp.float32(4.5)}), {"logit_scale": jnp.float32(4.5)})


def test_workdir_that_cannot_be_written(train_config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be locked"):
        train(train_config, tmp_path / "file" / "run")


def test_exit_status_of_an_interrupt(monkeypatch, tmp_path):
    def interrupted(config, workdir):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module, "train", interrupted)
    config = os.path.join(os.path.dirname(train_module.__file__), "configs", "digits.py")
    assert train_module.main([f"--config={config}", f"--workdir={tmp_path}"]) == 130
