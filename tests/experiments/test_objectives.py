"""Objectives: the same step on any mesh, and mistakes that are found before anything starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clip_jax import InputError
from experiments import parallel
from experiments.config import MeshConfig
from experiments.objectives import make_objective
from experiments.objectives.vqgan import gumbel_temperature
from experiments.settings import VqganSettings
from experiments.state import initial_state, make_train_step
from rudolph_jax.config import VQGAN_PRESETS

MESHES = {"one": MeshConfig(), "all": MeshConfig(data=2, fsdp=2, tensor=2)}


def one_step(config, devices, batch):
    """The state after a step of gradient descent, and its metrics."""
    mesh = parallel.make_mesh(config.mesh, devices)
    objective = make_objective(config, mesh)
    optimizer = optax.sgd(1.0)
    with jax.set_mesh(mesh):
        state, shardings = initial_state(config, objective, optimizer, mesh)
        step = make_train_step(objective, optimizer, shardings)
        return step(state, objective.prepare(parallel.put_batch(batch, mesh)))


@pytest.mark.parametrize("name", ["vqgan", "rudolph"])
def test_a_step_is_the_same_on_one_device_and_on_every_mesh_axis(
    name, vqgan_train_config, rudolph_train_config, rng
):
    config = {"vqgan": vqgan_train_config, "rudolph": rudolph_train_config}[name]
    batch = {"image": rng.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)}
    if name == "rudolph":
        batch["input_ids"] = rng.integers(0, 24, (8, 26), dtype=np.int32)
    taken = {}
    for key, devices in (("one", jax.devices()[:1]), ("all", jax.devices())):
        mesh = dataclasses.replace(config, mesh=MESHES[key])
        taken[key] = one_step(mesh, devices, batch)
    (state, metrics), (expected, wanted) = taken["all"], taken["one"]
    assert {key: float(v) for key, v in metrics.items()} == pytest.approx(
        {key: float(v) for key, v in wanted.items()}, rel=1e-5, abs=1e-6
    )
    assert float(wanted["grad_norm"]) > 0.1
    for a, b in zip(
        jax.tree.leaves(state["params"]), jax.tree.leaves(expected["params"]), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1.0, float(jnp.abs(b).max())))


def test_metrics_name_every_part(rudolph_train_config, vqgan_train_config):
    mesh = parallel.make_mesh(MeshConfig())
    found = {}
    for config in (rudolph_train_config, vqgan_train_config):
        objective = make_objective(config, mesh)
        batch = {
            "input_ids": jax.ShapeDtypeStruct((4, 26), jnp.int32),
            "image": jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8),
        }
        step = jax.ShapeDtypeStruct((), jnp.int32)
        _, metrics = jax.eval_shape(
            objective.loss, objective.abstract_params, batch, jax.random.key(0), step
        )
        found[config.objective] = set(metrics)
    assert found["rudolph"] == {"left_text_loss", "image_loss", "right_text_loss"}
    assert {"reconstruction_loss", "codebook_usage", "temperature"} <= found["vqgan"]


def test_gumbel_temperature_follows_half_a_cosine():
    settings = VqganSettings(temperature_start=2.0, temperature_end=0.5)
    found = [float(gumbel_temperature(settings, jnp.int32(step), 100)) for step in (0, 50, 100)]
    assert found == pytest.approx([2.0, 1.25, 0.5])


def test_dropout_follows_the_step(rudolph_train_config):
    """The same batch at two steps meets different masks, at the same step the same ones."""
    mesh = parallel.make_mesh(MeshConfig(), jax.devices()[:1])
    objective = make_objective(rudolph_train_config, mesh)
    params = jax.jit(objective.init)(jax.random.key(0))
    loss = jax.jit(lambda rng: objective.loss(params, batch, rng, jnp.int32(0))[0])
    batch = {"input_ids": jnp.ones((2, 26), jnp.int32)}
    first, again, other = (float(loss(jax.random.key(i))) for i in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ({"image_vocab_size": 20}, {}, "has 24 codes; config.model.image_vocab_size is 20"),
        ({"right_text_length": 0}, {}, "config.settings.image_to_text is 0.4; expected 0"),
        ({"text_special_tokens": 2}, {}, "special token LT_T2I is number 2"),
        ({}, {"vqgan": "nowhere"}, "nowhere: not a model folder"),
    ],
)
def test_a_decoder_that_does_not_fit_its_tokenizer(rudolph_train_config, model, settings, message):
    config = dataclasses.replace(
        rudolph_train_config,
        model=dataclasses.replace(rudolph_train_config.model, **model),
        settings=dataclasses.replace(rudolph_train_config.settings, **settings),
    )
    with pytest.raises(InputError, match=message):
        make_objective(config, parallel.make_mesh(MeshConfig()))


def test_pictures_are_made_of_whole_tokens(vqgan_train_config):
    mesh = parallel.make_mesh(MeshConfig())
    for name, size, multiple in (("gumbelf8", 36, 8), ("gumbelf8-dwt", 24, 16)):
        config = dataclasses.replace(
            vqgan_train_config,
            model=VQGAN_PRESETS[name],
            settings=VqganSettings(image_size=size),
        )
        message = f"image_size is {size}; expected a multiple of {multiple}"
        with pytest.raises(InputError, match=message):
            make_objective(config, mesh)
