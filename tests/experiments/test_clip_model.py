import dataclasses
import json

import jax
import numpy as np
import pytest

import clip_jax
from clip_jax import InputError, Predictor, PretrainedClip
from clip_jax.byte_bpe import CLIP, ByteBpe
from clip_jax.model import abstract_params
from experiments.evaluation.clip_model import PUBLISHED, ClipModel, open_clip
from experiments.evaluation.prompts.translations import read_translations


@pytest.fixture
def cache(tmp_path):
    """A file of translations; into Russian here, for a model that reads some."""
    file = tmp_path / "translations.json"
    texts = {"a cat": "кошка", "a dog": "собака"}
    translator = {"name": "toy-en-ru", "sha256": "0" * 64}
    file.write_text(json.dumps({"format": 1, "translator": translator, "texts": texts}))
    return file


def test_a_system_is_its_model(ruclip, goldens):
    model, clip = open_clip(ruclip, batch_size=3), clip_jax.load(ruclip)
    assert (model.name, model.language, model.average) == ("ruclip", "ru", "ruclip")
    assert (model.embed_dim, model.preset) == (48, None)
    prompts = ["кошка", "фото собаки", "дом", "лес"]
    features = np.asarray(clip.encode_text(clip.processor(text=prompts)["input_ids"]))
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(model.text_latents(prompts), expected, atol=1e-5)
    images = [goldens / "ruclip" / f"image{i}.png" for i in range(5)]
    expected = Predictor(clip).get_image_latents(images)
    np.testing.assert_allclose(model.image_latents(images), expected, atol=1e-5)


@pytest.mark.parametrize("average", ["ruclip", "clip"])
def test_classes_may_have_any_number_of_prompts(ruclip, average):
    model = open_clip(ruclip, average=average)
    templates, names = ["{}", "фото {}"], ["кошка", "дом", "лес"]
    prompts = [[template.replace("{}", name) for template in templates] for name in names]
    found = model.class_latents([*prompts, ["собака"]])
    expected = Predictor(model.clip, templates, average=average).get_text_latents(names)
    np.testing.assert_allclose(found[:3], expected, atol=1e-5)
    np.testing.assert_allclose(found[3:], model.text_latents(["собака"]), atol=1e-5)
    with pytest.raises(InputError, match="prompts are empty"):
        model.class_latents([["кошка"], []])


def test_translations_stand_before_the_model(ruclip, cache):
    plain = open_clip(ruclip, language="en", average="clip")
    model = open_clip(ruclip, language="en", average="clip", translations=cache)
    assert (model.name, model.language) == ("toy-en-ru + ruclip", "ru")
    found = model.class_latents([["a cat", "a dog"], ["a dog"]])
    expected = plain.class_latents([["кошка", "собака"], ["собака"]])
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"no translation of 'a fox' and 1 more.*translate") as e:
        model.text_latents(["a cat", "a fox", "a hare"])
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="reads Russian"):
        open_clip(ruclip, translations=cache)


def test_a_model_with_clips_vocabulary_reads_english(small_config, byte_vocabulary, tmp_path, rng):
    tokenizer = ByteBpe(*byte_vocabulary(CLIP, merges=30))
    text = dataclasses.replace(small_config.text, vocab_size=tokenizer.vocab_size)
    config = dataclasses.replace(small_config, text=text, eos_id=tokenizer.eos_id)
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_params(config)
    )
    folder = PretrainedClip(config, params, tokenizer).save(tmp_path / "clip")
    model = open_clip(folder)
    assert (model.language, model.average) == ("en", "clip")
    file = tmp_path / "translations.json"
    file.write_text(json.dumps({"format": 1, "translator": {}, "texts": {"кошка": "a cat"}}))
    translated = open_clip(folder, translations=file)
    assert (translated.name, translated.language) == ("translator + clip", "ru")
    expected = model.text_latents(["a cat"])
    np.testing.assert_array_equal(translated.text_latents(["кошка"]), expected)


def test_published_models_are_known_by_their_sizes():
    configs = {name: PUBLISHED[name] for name in PUBLISHED if name != "tiny"}
    configs["hf"] = dataclasses.replace(PUBLISHED["clip-vit-base-patch16"], pad_id=1, bos_id=0)
    found = {
        name: ClipModel(name, PretrainedClip(config, {}), "ru", "ruclip").preset
        for name, config in configs.items()
    }
    assert found == {**{name: name for name in found}, "hf": "clip-vit-base-patch16"}
    smaller = dataclasses.replace(configs["ruclip-small"], prompt_length=64)
    assert ClipModel("x", PretrainedClip(smaller, {}), "ru", "ruclip").preset is None


def test_what_a_result_tells(ruclip, cache, goldens, tmp_path):
    metadata = open_clip(ruclip, language="en", translations=cache).metadata()
    json.dumps(metadata)
    assert metadata["translations"]["translator"]["name"] == "toy-en-ru"
    assert (metadata["converted_from"], metadata["dtype"], metadata["average"]) == (
        "ruclip", "float32", "ruclip"
    )  # fmt: skip
    # The same model written again, and another one.
    clip = clip_jax.load(ruclip)
    again = open_clip(clip.save(tmp_path / "again"))
    assert again.content_hash == metadata["sha256"]
    params = jax.tree.map(np.asarray, dict(clip.params))
    params["logit_scale"] = params["logit_scale"] + 1
    other = clip_jax.PretrainedClip(clip.config, params, clip.processor.tokenizer)
    assert open_clip(other.save(tmp_path / "other")).content_hash != metadata["sha256"]


def test_broken_translations_are_one_line_errors(tmp_path, cache):
    whole = json.loads(cache.read_text())
    for content, message in (
        ("{", "not JSON"),
        ("[]", "holds list"),
        (json.dumps({"кошка": "a cat"}), r"holds \['кошка'\]; expected format"),
        (json.dumps(whole | {"format": 2}), "is of format 2; expected 1"),
        (json.dumps(whole | {"texts": {"a": 3}}), "not an object of strings"),
        (json.dumps(whole | {"translator": []}), "translator is a list"),
    ):
        cache.write_text(content)
        with pytest.raises(InputError, match=message):
            read_translations(cache)
    with pytest.raises(InputError, match="no translations here"):
        read_translations(tmp_path / "absent.json")


def test_saved_translations_come_back(cache):
    kept = read_translations(cache)
    kept.save()
    again = read_translations(cache)
    assert (again.texts, again.sha256) == (kept.texts, kept.sha256)
    assert [path.name for path in cache.parent.iterdir()] == ["translations.json"]


def test_open_system_refuses_what_it_does_not_know(ruclip):
    with pytest.raises(InputError, match="language is 'de'"):
        open_clip(ruclip, language="de")
    with pytest.raises(InputError, match="average is 'median'"):
        open_clip(ruclip, average="median")
