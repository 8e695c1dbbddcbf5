"""Tests of training steps whose linear maps multiply 8-bit floats."""

import dataclasses

import jax
import pytest

from clip_jax import InputError
from experiments.config.run import MeshConfig, TrainConfig
from tests.experiments.test_step import batch_of, one_step


def _distance(found, wanted, start):
    """How far two steps end apart, as a share of the way of the second."""
    apart, way = (
        sum(float(((a - b) ** 2).sum()) for a, b in zip(*map(jax.tree.leaves, trees), strict=True))
        for trees in ((found, wanted), (wanted, start))
    )
    return (apart / way) ** 0.5


@pytest.mark.parametrize(
    "name", ["train_config", pytest.param("rudolph_train_config", marks=pytest.mark.slow)]
)
def test_a_step_is_near_that_of_whole_products(name, request, rng):
    config = request.getfixturevalue(name)
    batch = batch_of(config, rng)
    start, plain, metrics = one_step(config, batch, devices=1)
    _, rounded, after = one_step(config, batch, start, devices=1, fp8_products=True)
    assert 1e-3 < _distance(rounded, plain, start["params"]) < 0.3
    assert float(after["loss"]) == pytest.approx(float(metrics["loss"]), rel=2e-2)
    assert after["loss"] != metrics["loss"]


@pytest.mark.parametrize("way", [{"mesh": MeshConfig(2, 2, 2)}, {"parallel": "pmap"}])
def test_any_number_of_devices_rounds_alike(way, train_config, rng):
    """A scale of a device's own rows would round each value otherwise: a distance above 0.02."""
    batch = batch_of(train_config, rng)
    start, one, _ = one_step(train_config, batch, devices=1, fp8_products=True)
    _, eight, _ = one_step(train_config, batch, start, fp8_products=True, **way)
    assert _distance(eight, one, start["params"]) < 5e-3


def test_convolutions_have_none(vqgan_train_config):
    config = dataclasses.replace(vqgan_train_config, fp8_products=True)
    with pytest.raises(InputError, match="config.fp8_products is True; expected False"):
        TrainConfig.from_dict(config.to_dict())
