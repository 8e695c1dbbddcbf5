import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import clip_jax
from clip_jax import (
    Clip,
    Compute,
    InputError,
    Predictor,
    PretrainedClip,
    jit_apply,
    model_folder,
)
from clip_jax.layers import stack_layers, unstack_layers
from experiments.data.vocabulary import train_tokenizer


@pytest.fixture(scope="module")
def clip(small_config):
    config = dataclasses.replace(
        small_config, text=dataclasses.replace(small_config.text, vocab_size=80)
    )
    ids = np.zeros((1, config.text.context_length), np.int32)
    pixels = np.zeros((1, 24, 24, 3), np.float32)
    params = jax.jit(Clip(config).init)(jax.random.key(0), ids, pixels)["params"]
    words = ["кошка", "собака", "дом", "лес", "красный круг", "фото"]
    return PretrainedClip(config, params, train_tokenizer(words, 80))


@pytest.fixture(scope="module")
def folder(clip, tmp_path_factory):
    return clip.save(tmp_path_factory.mktemp("models") / "clip", note="made by a test")


def test_saved_model_round_trip(clip, folder):
    loaded = clip_jax.load(folder)
    assert loaded.config == clip.config
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), dict(clip.params))
    assert loaded.processor.tokenizer.model == clip.processor.tokenizer.model
    about = model_folder.read_config(folder)
    assert (about["kind"], about["provenance"]) == ("clip", {"note": "made by a test"})


def test_folder_has_unstacked_layers(clip, folder):
    params = model_folder.read_params(folder)
    assert sorted(params["text"]["layers"]) == ["0", "1", "2"]
    kernel = params["text"]["layers"]["1"]["mlp"]["in_kernel"]
    np.testing.assert_array_equal(kernel, clip.params["text"]["layers"]["mlp"]["in_kernel"][1])
    again = unstack_layers(stack_layers(params))
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_existing_folder_is_not_touched(clip, folder):
    with pytest.raises(InputError, match="already exists"):
        clip.save(folder)


def test_interrupted_write_leaves_nothing(clip, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(model_folder.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        clip.save(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def damaged(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "damaged")


def test_damaged_folders_are_one_line_errors(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RUDOLPH_JAX_VERIFY", "0")  # else each is a file that was changed
    def expect(message, folder):
        with pytest.raises(InputError, match=message) as caught:
            clip_jax.load(folder)
        assert "\n" not in str(caught.value)

    expect("config.json cannot be read", tmp_path / "absent")
    copy = damaged(folder, tmp_path)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config["config"]["embed_dim"] = 21
    (copy / "config.json").write_text(json.dumps(config))
    expect(r"parameter text/projection is \[24, 20\]; config.json asks for \[24, 21\]", copy)
    (copy / "config.json").write_text(json.dumps({**config, "kind": "rudolph"}))
    expect("holds a model of kind 'rudolph'; expected 'clip'", copy)
    (copy / "config.json").write_text('{"embed_dim": 512}')
    expect("must be converted first", copy)
    (copy / "config.json").write_text("{")
    expect("not JSON", copy)
    shutil.copy(folder / "config.json", copy)
    (copy / "tokenizer.model").write_bytes(b"no model")
    expect("not a sentencepiece model", copy)
    shutil.rmtree(copy / "params")
    expect("has no params folder", copy)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([[2, 9, 9]], "row 0 has no EOS"),
        ([[2, 3], [2, 2]], "row 1 has no EOS"),
        ([[2, 80, 3]], r"input_ids\[0, 1\] is 80; expected 0 to 79"),
        ([[2, -1, 3]], r"input_ids\[0, 1\] is -1"),
        ([2, 3], r"int64\[2\]; expected int32\[B, S\]"),
        ([[2.0, 3.0]], "float64"),
        ([[3] * 13], "13 long; expected 1 to 12"),
    ],
)
def test_wrong_ids_are_named(clip, ids, message):
    with pytest.raises(InputError, match=message):
        clip.encode_text(np.array(ids))


@pytest.mark.parametrize("shape", [(2, 3, 24, 24), (24, 24, 3), (1, 32, 32, 3)])
def test_wrong_pixels_are_named(clip, shape):
    with pytest.raises(InputError, match=r"expected \[B, 24, 24, 3\], channels last"):
        clip.encode_image(np.zeros(shape, np.float32))


def test_compute_options_load_the_same_model(folder, clip):
    pixels = np.random.default_rng(0).normal(size=(2, 24, 24, 3)).astype(np.float32)
    expected = np.asarray(clip.encode_image(pixels))
    low = clip_jax.load(folder, Compute(dtype="bfloat16", unroll=2)).encode_image(pixels)
    assert 0 < np.abs(np.asarray(low) - expected).max() < 0.05 * np.abs(expected).max()


def test_parameters_keep_their_dtype_in_a_model_that_computes_in_another(folder, clip, tmp_path):
    loaded = clip_jax.load(folder, Compute(dtype="bfloat16"))
    loaded.encode_text(np.full((1, 3), clip.config.eos_id, np.int32))
    loaded.save(tmp_path / "again")
    for model in (loaded, clip_jax.load(tmp_path / "again")):
        jax.tree.map(np.testing.assert_array_equal, dict(model.params), dict(clip.params))
    assert loaded.content_hash == clip.content_hash


def test_last_batch_is_padded_and_compiles_nothing(clip, rng):
    images = list(rng.integers(0, 256, (7, 30, 40, 3), dtype=np.uint8))
    whole = Predictor(clip, batch_size=7).get_image_latents(images)
    predictor = Predictor(clip, batch_size=3)
    np.testing.assert_allclose(predictor.get_image_latents(images), whole, atol=1e-5)
    programs = jit_apply._apply._cache_size()
    predictor.get_image_latents(images[:5])
    assert jit_apply._apply._cache_size() == programs
    assert predictor.get_image_latents([]).shape == (0, 20)


def test_averages_of_templates(clip):
    labels, templates = ["кошка", " Дом "], ["{}", "фото {}"]
    encoded = np.stack(
        [
            np.asarray(clip.encode_text(clip.processor(text=[t.format(w) for w in ("кошка", "дом")])
                       ["input_ids"]))
            for t in templates
        ]
    )  # fmt: skip

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    found = Predictor(clip, templates).get_text_latents(labels)
    np.testing.assert_allclose(found, unit(encoded.mean(0)), atol=2e-6)
    found = Predictor(clip, templates, average="clip").get_text_latents(labels)
    np.testing.assert_allclose(found, unit(unit(encoded).mean(0)), atol=2e-6)
    # The two differ, or the option would say nothing.
    assert np.abs(unit(encoded.mean(0)) - unit(unit(encoded).mean(0))).max() > 1e-5


def test_predictor_refuses_invalid_arguments(clip):
    for arguments, message in (
        ({"templates": ["фото"]}, "needs exactly one"),
        ({"templates": []}, "templates are empty"),
        ({"average": "median"}, "average is 'median'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ):
        with pytest.raises(InputError, match=message):
            Predictor(clip, **arguments)
    with pytest.raises(InputError, match="class_labels are 'кошка'"):
        Predictor(clip).get_text_latents("кошка")


def test_another_image_size(clip, rng):
    larger = clip.with_image_size(40)
    pixels = rng.normal(size=(1, 40, 40, 3)).astype(np.float32)
    assert larger.encode_image(pixels).shape == (1, 20)
    back = larger.with_image_size(24).params["visual"]["position_embedding"]
    original = clip.params["visual"]["position_embedding"]
    # Up and down again is near the original, and the class token's row is the very same.
    np.testing.assert_array_equal(back[0], original[0])
    assert np.abs(back - original).max() < 0.5 * np.abs(original).max()
    with pytest.raises(InputError, match="vision.image_size is 30, not a multiple"):
        clip.with_image_size(30)
