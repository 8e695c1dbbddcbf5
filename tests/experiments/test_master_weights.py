"""Tests of steps that compute with bfloat16 copies of float32 parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import InputError
from clip_jax.config import Compute
from experiments.config.run import MeshConfig
from experiments.objectives.objective import StepContext
from experiments.training.master_weights import bfloat16_copies
from experiments.training.step import _accumulate_gradients
from tests.experiments.test_step import batch_of, one_step


def _config(config, master_weights=True, **changes):
    optim = dataclasses.replace(config.optim, master_weights=master_weights)
    return dataclasses.replace(
        config, optim=optim, compute=Compute(dtype="bfloat16"), **changes
    )


@pytest.mark.parametrize(
    "name", ["train_config", pytest.param("rudolph_train_config", marks=pytest.mark.slow)]
)
def test_parameters_stay_float32_and_move_as_without_copies(name, request, rng):
    """Products are of bfloat16 both times; what differs is how gradients are rounded and summed."""
    config = request.getfixturevalue(name)
    batch = batch_of(config, rng)
    start, plain, _ = one_step(_config(config, False), batch, devices=1)
    _, masters, metrics = one_step(_config(config), batch, start, devices=1)
    moved, wanted, norm = 0.0, 0.0, 0.0
    for begun, a, b in zip(
        *map(jax.tree.leaves, (start["params"], masters, plain)), strict=True
    ):
        assert a.dtype == b.dtype == np.float32
        moved += float(((a - b) ** 2).sum())
        wanted += float(((b - begun) ** 2).sum())
        norm += float(np.abs(a - begun).sum())
    assert norm > 0 and moved < 1e-3 * wanted
    assert moved > 0  # the copies were in use
    assert metrics["grad_norm"].dtype == np.float32


def test_micro_batches_are_summed_in_float32(rudolph_train_config, rng):
    config = _config(rudolph_train_config)
    batch = batch_of(config, rng)
    start, whole, _ = one_step(config, batch, devices=1)
    _, parts, _ = one_step(config, batch, start, mesh=MeshConfig(2, 2, 2), grad_accum_steps=2)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert np.abs(a - b).max() < 2e-2 * max(np.abs(a).max(), 0.1)


def test_a_sum_of_bfloat16_gradients_has_more_bits_than_bfloat16():
    def gradient(copy, batch, now):
        return (jnp.float32(0), {}), {"kernel": batch["image"].astype(copy["kernel"].dtype)[0]}

    sum_up = _accumulate_gradients(gradient, 2)
    now = StepContext(jnp.int32(0), jax.random.split(jax.random.key(0), 2), {})
    copy = {"kernel": jnp.zeros(1, jnp.bfloat16)}
    _, grads = sum_up(copy, {"image": jnp.array([[1.0], [2.0**-10]])}, now)
    assert float(grads["kernel"][0]) == (1 + 2**-10) / 2


def test_vectors_are_not_copied():
    masters = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)}
    copies = bfloat16_copies(masters)
    assert {name: str(leaf.dtype) for name, leaf in copies.items()} == {
        "kernel": "bfloat16", "bias": "float32", "scale": "float32"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compute": Compute(dtype="float32")}, "it needs 'bfloat16'"),
        ({"grad_accum_steps": 2}, "in bfloat16; turn one of the two off"),
    ],
)
def test_what_would_sum_in_bfloat16_is_refused(train_config, rng, changes, message):
    config = dataclasses.replace(_config(train_config), **changes)
    with pytest.raises(InputError, match=message):
        one_step(config, batch_of(config, rng), devices=1)
