"""Beginning from a model folder: what is taken, resized, left, and refused."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest

from clip_jax import InputError, PretrainedClip
from clip_jax.model import Clip
from clip_jax.position_embedding import resize_position_embedding
from experiments.config.run import InitConfig
from experiments.objectives import make_objective
from experiments.training.partitioning import make_mesh
from experiments.training.state import initial_state
from experiments.training.warm_start import initial_vocabulary, load_initial_params


@pytest.fixture
def source(train_config, tmp_path):
    params = random_params(train_config.model)
    return PretrainedClip(train_config.model, params).save(tmp_path / "model"), params


@functools.cache
def random_params(model):
    ids = np.zeros((1, model.text.context_length), np.int32)
    side = model.vision.image_size
    init = jax.jit(Clip(model).init)
    params = init(jax.random.key(9), ids, np.zeros((1, side, side, 3), np.float32))["params"]
    return jax.device_get(params)


def begun(config, **optim):
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, **optim))
    mesh = make_mesh(config.mesh, jax.devices()[:1])
    fresh, _ = initial_state(config, make_objective(config, mesh), optax.sgd(1.0), mesh)
    return jax.device_get(fresh["params"]), load_initial_params(fresh, config)


def test_all_is_taken_but_what_is_left(train_config, source):
    folder, params = source
    leave = ("text/token_embedding", "text/layers/1/.*")
    config = dataclasses.replace(train_config, init=InitConfig(str(folder), leave))
    fresh, state = begun(config, ema=0.9)
    table = state["params"]["text"]["token_embedding"]
    np.testing.assert_array_equal(table, fresh["text"]["token_embedding"])
    kernel = state["params"]["text"]["layers"]["mlp"]["in_kernel"]
    np.testing.assert_array_equal(kernel[0], params["text"]["layers"]["mlp"]["in_kernel"][0])
    np.testing.assert_array_equal(kernel[1], fresh["text"]["layers"]["mlp"]["in_kernel"][1])
    np.testing.assert_array_equal(
        state["params"]["visual"]["projection"], params["visual"]["projection"]
    )
    for a, b in zip(jax.tree.leaves(state["ema"]), jax.tree.leaves(state["params"]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_resolution_resizes_the_positions(train_config, source):
    folder, params = source
    vision = dataclasses.replace(train_config.model.vision, image_size=32)
    model = dataclasses.replace(train_config.model, vision=vision)
    config = dataclasses.replace(train_config, model=model, init=InitConfig(str(folder)))
    _, state = begun(config)
    expected = resize_position_embedding(params["visual"]["position_embedding"], 4)
    np.testing.assert_array_equal(state["params"]["visual"]["position_embedding"], expected)


def test_a_shorter_context_takes_the_first_positions(train_config, source):
    """Text is causal: a text that fits into both contexts has the same features."""
    folder, params = source
    text = dataclasses.replace(train_config.model.text, context_length=8)
    model = dataclasses.replace(train_config.model, text=text)
    config = dataclasses.replace(train_config, model=model, init=InitConfig(str(folder)))
    _, state = begun(config)
    positions = state["params"]["text"]["position_embedding"]
    np.testing.assert_array_equal(positions, params["text"]["position_embedding"][:8])
    ids = np.full((1, 12), model.pad_id, np.int32)
    ids[0, :4] = [model.bos_id, 7, 9, model.eos_id]
    long = PretrainedClip(train_config.model, params).encode_text(ids)
    short = PretrainedClip(model, jax.device_get(state["params"])).encode_text(ids[:, :8])
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_a_longer_context_is_refused_with_the_way_out(train_config, source):
    text = dataclasses.replace(train_config.model.text, context_length=20)
    model = dataclasses.replace(train_config.model, text=text)
    config = dataclasses.replace(train_config, model=model, init=InitConfig(str(source[0])))
    with pytest.raises(InputError, match="is 20, that of .* is 12; its later positions") as caught:
        begun(config)
    assert "reinitialize=\"('text/position_embedding',)\"" in str(caught.value)
    fresh, state = begun(
        dataclasses.replace(config, init=InitConfig(str(source[0]), ("text/position_embedding",)))
    )
    np.testing.assert_array_equal(
        state["params"]["text"]["position_embedding"], fresh["text"]["position_embedding"]
    )


@pytest.mark.parametrize(
    ("change", "leave", "message"),
    [
        ({"activation": "gelu"}, (), "has activation = 'quick_gelu', config.model.activation is"),
        ({"embed_dim": 12}, (), r"projection is \[\d+, 20\]; expected \[\d+, 12\]"),
        ({"logit_bias": True}, (), r"logit_bias is not there; expected \[\]"),
        ({}, ("text/nothing",), "init.reinitialize has 'text/nothing', which names no parameter"),
    ],
)
def test_what_does_not_fit(train_config, source, change, leave, message):
    config = dataclasses.replace(
        train_config,
        model=dataclasses.replace(train_config.model, **change),
        init=InitConfig(str(source[0]), leave),
    )
    with pytest.raises(InputError, match=message):
        begun(config)


def test_the_vocabulary_comes_with_the_token_table(train_config, source):
    folder, _ = source
    begins = dataclasses.replace(train_config, init=InitConfig(str(folder)))
    with pytest.raises(InputError, match="has no tokenizer.model, which its token table belongs"):
        initial_vocabulary(begins)
    (folder / "tokenizer.model").write_bytes(b"")
    assert initial_vocabulary(begins).vocabulary == str(folder)
    named = dataclasses.replace(
        begins, data=dataclasses.replace(begins.data, vocabulary="another.model")
    )
    fresh = dataclasses.replace(begins, init=InitConfig(str(folder), ("text/token_.*",)))
    for config in (named, fresh, train_config):
        assert initial_vocabulary(config) == config.data
