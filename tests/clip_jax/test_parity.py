"""Converted checkpoints compute what the PyTorch originals recorded (tests/goldens)."""

import json

import jax
import numpy as np
import pytest

import clip_jax
import converters
from clip_jax import Clip, InputError, Predictor
from clip_jax.contrastive import contrastive_loss
from clip_jax.layers import unstack_layers
from converters.clip_tables import OPENAI_RULES, parameter_shapes
from converters.rules import resolve_rules


def assert_close(found, expected, tolerance=1e-5):
    """Asserts that the largest difference is small against the largest magnitude."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def ruclip(goldens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ruclip") / "model"
    converters.convert("ruclip", goldens / "ruclip", folder)
    case = json.loads((goldens / "ruclip" / "case.json").read_text(encoding="utf-8"))
    outputs = dict(np.load(goldens / "ruclip" / "outputs.npz"))
    images = [goldens / "ruclip" / f"image{i}.png" for i in range(5)]
    return clip_jax.load(folder), case, outputs, images


def test_ruclip_inputs(ruclip):
    clip, case, outputs, images = ruclip
    inputs = clip.processor(text=case["texts"], images=images)
    np.testing.assert_array_equal(inputs["input_ids"], outputs["input_ids"])
    expected = outputs["pixel_values"].transpose(0, 2, 3, 1)
    assert np.abs(inputs["pixel_values"] - expected).max() < 1e-6


def test_ruclip_features_and_logits(ruclip):
    clip, case, outputs, images = ruclip
    inputs = clip.processor(text=case["texts"], images=images)
    assert_close(clip.encode_image(inputs["pixel_values"]), outputs["image_features"])
    assert_close(clip.encode_text(inputs["input_ids"]), outputs["text_features"])
    per_image, per_text = clip.logits(**inputs)
    assert_close(per_image, outputs["logits_per_image"])
    assert_close(per_text, outputs["logits_per_text"])


@pytest.mark.parametrize("batch_size", [2, 8])
def test_ruclip_predictor(ruclip, batch_size):
    clip, case, outputs, images = ruclip
    predictor = Predictor(clip, batch_size=batch_size)
    assert predictor.templates == case["templates"]
    latents = predictor.get_text_latents(case["classes"])
    assert_close(latents, outputs["text_latents"])
    assert_close(predictor.get_image_latents(images), outputs["image_latents"])
    assert predictor.run(images, latents) == outputs["labels"].tolist()


def test_ruclip_contrastive_loss_and_gradients(ruclip):
    clip, case, outputs, images = ruclip
    ids = outputs["input_ids"][:5].astype(np.int32)
    pixels = outputs["pixel_values"].transpose(0, 2, 3, 1)

    @jax.jit
    @jax.value_and_grad
    def loss_of(params):
        image, text, scale = Clip(clip.config).apply({"params": params}, ids, pixels)
        return contrastive_loss(image, text, scale)[0]

    loss, grads = loss_of(clip.params)
    np.testing.assert_allclose(loss, outputs["contrastive_loss"], rtol=1e-5)
    grads = unstack_layers(jax.tree.map(np.asarray, grads))
    by_path = {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
    }
    checked = set()
    for mapping in resolve_rules(OPENAI_RULES, parameter_shapes(clip.config)):
        for name, grad in zip(
            mapping.sources, mapping.to_torch(by_path[mapping.target]), strict=True
        ):
            norm = outputs[f"grad_norm/{name}"]
            np.testing.assert_allclose(np.linalg.norm(grad), norm, rtol=1e-4, err_msg=name)
            if f"grad/{name}" in outputs:
                assert_close(grad, outputs[f"grad/{name}"], 1e-4)
            checked.add(f"grad_norm/{name}")
    assert checked == {key for key in outputs if key.startswith("grad_norm/")}


def test_openai_clip(goldens, tmp_path):
    folder = goldens / "openai_clip_vit"
    converters.convert("openai-clip", folder / "model.pt", tmp_path / "model")
    clip = clip_jax.load(tmp_path / "model")
    outputs = np.load(folder / "outputs.npz")
    pixels, ids = outputs["pixel_values"].transpose(0, 2, 3, 1), outputs["input_ids"]
    assert clip.config.image.resample == "bicubic"
    assert_close(clip.encode_image(pixels), outputs["image_features"])
    assert_close(clip.encode_text(ids), outputs["text_features"])
    assert_close(clip.logits(ids, pixels)[0], outputs["logits_per_image"])
    with pytest.raises(InputError, match="no tokenizer.model"):
        clip.processor(text="a cat")


def test_ruclip_small(goldens, tmp_path):
    converters.convert("ruclip-small", goldens / "ruclip_small", tmp_path / "model")
    clip = clip_jax.load(tmp_path / "model")
    outputs = np.load(goldens / "ruclip_small" / "outputs.npz")
    pixels, ids = outputs["pixel_values"].transpose(0, 2, 3, 1), outputs["input_ids"]
    assert_close(clip.encode_image(pixels), outputs["image_features"])
    assert_close(clip.encode_text(ids), outputs["text_features"])
    per_image, per_text = clip.logits(ids, pixels)
    assert_close(per_image, outputs["logits_per_image"])
    assert_close(per_text, outputs["logits_per_text"])
    assert clip.encode_image_features(pixels).shape == (3, 64)
    # Whatever pads behind the EOS.
    np.testing.assert_array_equal(
        clip.encode_text(np.where(outputs["attention_mask"], ids, 7)), clip.encode_text(ids)
    )


def test_bfloat16_folder_stays_near(goldens, tmp_path):
    converters.convert("ruclip", goldens / "ruclip", tmp_path / "model", dtype="bfloat16")
    clip = clip_jax.load(tmp_path / "model")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(clip.params)} == {"bfloat16"}
    outputs = np.load(goldens / "ruclip" / "outputs.npz")
    found = clip.encode_image(outputs["pixel_values"].transpose(0, 2, 3, 1))
    assert_close(found, outputs["image_features"], 0.02)
