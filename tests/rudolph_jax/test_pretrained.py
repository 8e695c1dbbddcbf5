import dataclasses
import json

import jax
import numpy as np
import pytest

import rudolph_jax
from clip_jax import Compute, InputError, cpu
from clip_jax.cpu.transposed import is_transposed
from clip_jax.layers import unstack_layers
from rudolph_jax import PretrainedRudolph, sharding
from rudolph_jax.model import abstract_params


@pytest.fixture(scope="module")
def model(tiny_config, tiny_params):
    return PretrainedRudolph(
        tiny_config, unstack_layers(jax.tree.map(np.asarray, tiny_params(tiny_config)))
    )


def test_a_saved_model_loads_as_it_was(model, tiny_ids, tmp_path):
    model.save(tmp_path / "model", source="a test")
    again = rudolph_jax.load(tmp_path / "model")
    assert again.config == model.config
    jax.tree.map(np.testing.assert_array_equal, dict(again.params), dict(model.params))
    # Two programs: a loaded model's kernels are transposed, so products sum in another order.
    np.testing.assert_allclose(again.logits(tiny_ids), model.logits(tiny_ids), atol=5e-5)
    about = json.loads((tmp_path / "model" / "config.json").read_text())
    assert about["kind"] == "rudolph" and about["provenance"] == {"source": "a test"}
    with pytest.raises(InputError, match="already exists"):
        model.save(tmp_path / "model")


def test_kernels_are_transposed_when_loaded_on_a_cpu(model, tiny_ids, tmp_path):
    folder = model.save(tmp_path / "model")
    transposed = rudolph_jax.load(folder)
    with cpu.forms(False):
        plain = rudolph_jax.load(folder)
    assert is_transposed(transposed.inference_params["layers"]["0"]["mlp"]["in_kernel"])
    assert not any(
        map(is_transposed, jax.tree.leaves(plain.inference_params, is_leaf=is_transposed))
    )
    jax.tree.map(np.testing.assert_array_equal, dict(transposed.params), dict(model.params))
    np.testing.assert_allclose(plain.logits(tiny_ids), transposed.logits(tiny_ids), atol=5e-5)
    again = rudolph_jax.load(transposed.save(tmp_path / "again"))
    jax.tree.map(np.testing.assert_array_equal, dict(again.params), dict(model.params))


def test_loss_is_the_originals_by_default(model, tiny_ids):
    legacy, _ = model.loss(tiny_ids)
    mended, _ = model.loss(tiny_ids, legacy_boundary_label=False)
    assert legacy != mended


def test_bfloat16_is_near(model, tiny_ids):
    half = PretrainedRudolph(model.config, model.params, compute=Compute(dtype="bfloat16"))
    exact = np.asarray(model.logits(tiny_ids))
    assert np.abs(np.asarray(half.logits(tiny_ids)) - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.zeros((1, 19), np.int32), "input_ids are 19 long; expected 1 to 18"),
        (np.zeros((1, 0), np.int32), "input_ids are 0 long"),
        (np.zeros(5, np.int32), r"int32\[5\]; expected int32\[B, T\]"),
        (np.zeros((1, 5), np.float32), r"float32\[1, 5\]; expected int32"),
        (np.full((1, 2), 23, np.int32), r"\[0, 0\] is 23; expected 0 to 22 in the text"),
        (np.full((2, 6), 19, np.int32), r"\[0, 5\] is 19; expected 0 to 18 in the image"),
        (np.full((1, 1), -1, np.int32), r"is -1; expected 0 to 22"),
    ],
)
def test_ids_are_checked_before_anything_is_computed(model, ids, message):
    for call in (model.logits, model.loss, model.hidden_states):
        with pytest.raises(InputError, match=message):
            call(ids)


def test_what_is_missing_is_named(model):
    with pytest.raises(InputError, match="has no tokenizer.model"):
        _ = model.tokenizer
    with pytest.raises(InputError, match="no image tokenizer was given"):
        model.encode_images([np.zeros((8, 8, 3), np.uint8)])


def test_tokenizers_of_another_model_are_refused(model, tokenizer, tiny_vqgan):
    with pytest.raises(InputError, match="the tokenizer has 700 pieces, the model's"):
        PretrainedRudolph(model.config, model.params, tokenizer)
    config = dataclasses.replace(model.config, image_vocab_size=18)
    with pytest.raises(InputError, match="has 17 codes, the model's image_vocab_size is 18"):
        PretrainedRudolph(config, model.params, None, tiny_vqgan)


def test_damaged_folders_are_refused(model, tmp_path, monkeypatch):
    monkeypatch.setenv("RUDOLPH_JAX_VERIFY", "0")  # else each is a file that was changed
    folder = model.save(tmp_path / "model")
    file = folder / "config.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps({**about, "config": {**about["config"], "width": 16}}))
    with pytest.raises(InputError, match="config.json asks for"):
        rudolph_jax.load(folder)
    file.write_text(json.dumps({**about, "kind": "clip"}))
    with pytest.raises(InputError, match="kind 'clip'; expected 'rudolph'"):
        rudolph_jax.load(folder)
    file.write_text(json.dumps({**about, "config": {**about["config"], "depth": 3}}))
    with pytest.raises(InputError, match="unknown depth"):
        rudolph_jax.load(folder)


def test_the_sharding_table_names_every_parameter_once(tiny_config):
    import re

    for changes in ({}, {"sandwich_norm": False}, {"right_text_length": 0}):
        config = dataclasses.replace(tiny_config, **changes)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(config)):
            name = "/".join(key.key for key in path)
            rows = [axes for pattern, axes in sharding.AXES if re.fullmatch(pattern, name)]
            assert len(rows) == 1 and len(rows[0]) == leaf.ndim, name
