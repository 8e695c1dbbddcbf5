"""Runs and models in a bucket of an emulator on loopback."""

import dataclasses
import os

import numpy as np
import pytest

pytest.importorskip("gcsfs", reason="the extra gcs is not installed")

import jax
from gcs_emulator import serving

import clip_jax
from experiments.data.sample_ids import read_ids
from experiments.train import train
from experiments.training.metrics import read_metrics


@pytest.fixture(scope="module")
def store():
    """The emulator, which all clients of this process and its children talk to."""
    with serving() as store:
        before = dict(os.environ)
        os.environ.update(store.environment)
        yield store
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def config(train_config):
    return dataclasses.replace(
        train_config,
        data=dataclasses.replace(train_config.data, batch_size=8, log_ids=True),
        steps=4,
        checkpoint_every=2,
        evaluate_every=2,
        evaluators=("retrieval:validation",),
    )


def test_train(store, config, tmp_path):
    """A run in a bucket is the one on a disk, and is resumed as that is."""
    train(config, "gs://bucket/run")
    train(config, tmp_path / "run")
    assert read_metrics("gs://bucket/run") == read_metrics(tmp_path / "run")
    assert read_ids("gs://bucket/run") == read_ids(tmp_path / "run")
    assert [name for name in store.names("run/") if "lock" in name or "shared" in name] == []
    assert len(store.names("run/tensorboard/")) == 1
    assert not list(tmp_path.glob("gs:*"))
    here, there = (
        clip_jax.load(place) for place in (tmp_path / "run" / "model", "gs://bucket/run/model")
    )
    assert here.content_hash == there.content_hash
    jax.tree.map(np.testing.assert_array_equal, here.params, there.params)
