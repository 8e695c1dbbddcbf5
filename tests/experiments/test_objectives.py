"""Objectives: what they report, and mistakes that are found before anything starts."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from clip_jax import InputError
from experiments.config.objective import VqganSettings
from experiments.config.run import MeshConfig
from experiments.objectives import make_objective
from experiments.objectives.vqgan import gumbel_temperature
from experiments.training import partitioning
from experiments.training.optimizer import make_optimizer
from experiments.training.state import fresh_state
from experiments.training.step import make_train_step
from rudolph_jax.config import VQGAN_PRESETS


def test_metrics_name_every_part(rudolph_train_config, vqgan_train_config):
    mesh = partitioning.make_mesh(MeshConfig())
    found = {}
    for config in (rudolph_train_config, vqgan_train_config):
        objective = make_objective(config, mesh)
        batch = {
            "input_ids": jax.ShapeDtypeStruct((4, 26), jnp.int32),
            "image": jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.uint8),
        }
        body = make_train_step(config, objective, make_optimizer(config.optim, config.steps))
        state = jax.eval_shape(
            lambda rng, config=config, objective=objective: fresh_state(
                config, objective, make_optimizer(config.optim, config.steps), rng
            ),
            jax.random.key(0),
        )
        _, metrics = jax.eval_shape(body, state, batch)
        found[config.objective] = set(metrics)
    usual = {"loss", "grad_norm", "skipped"}
    assert found["rudolph"] == {"left_text_loss", "image_loss", "right_text_loss"} | usual
    assert {"reconstruction_loss", "codebook_usage", "temperature"} <= found["vqgan"]


def test_gumbel_temperature_follows_half_a_cosine():
    settings = VqganSettings(temperature_start=2.0, temperature_end=0.5)
    found = [float(gumbel_temperature(settings, jnp.int32(step), 100)) for step in (0, 50, 100)]
    assert found == pytest.approx([2.0, 1.25, 0.5])


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
        make_objective(config, partitioning.make_mesh(MeshConfig()))


def test_pictures_are_made_of_whole_tokens(vqgan_train_config):
    mesh = partitioning.make_mesh(MeshConfig())
    for name, size, multiple in (("gumbelf8", 36, 8), ("gumbelf8-dwt", 24, 16)):
        config = dataclasses.replace(
            vqgan_train_config,
            model=VQGAN_PRESETS[name],
            settings=VqganSettings(image_size=size),
        )
        message = f"image_size is {size}; expected a multiple of {multiple}"
        with pytest.raises(InputError, match=message):
            make_objective(config, mesh)
