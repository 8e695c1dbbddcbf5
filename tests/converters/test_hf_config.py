"""CLIPConfig in our words: defaults, older spellings, the legacy EOS, where pixels come from."""

import json

import pytest
from foreign import hf_config, hf_folder

from clip_jax import PRESETS
from converters import hf_clip


def test_transformers_defaults_are_clip_vit_base_patch32():
    config = hf_clip.translate({}, None, "x")
    expected = PRESETS["clip-vit-base-patch32"]
    assert (config.vision, config.text, config.image) == (
        expected.vision, expected.text, expected.image
    )
    assert (config.embed_dim, config.bos_id, config.eos_id) == (512, 49406, 49407)


def test_legacy_eos_is_the_highest_id(small_config):
    settings = hf_config(small_config)
    settings["text_config"] |= {"bos_token_id": 0, "eos_token_id": 2}
    config = hf_clip.translate(settings, None, "x")
    assert (config.bos_id, config.eos_id) == (58, 59)


def test_older_dicts_replace_the_newer_ones(small_config):
    settings = hf_config(small_config)
    settings["text_config_dict"] = settings["text_config"] | {"hidden_size": 30}
    settings["text_config"] = {"hidden_size": 24, "num_attention_heads": 24}
    config = hf_clip.translate(settings, None, "x")
    assert (config.text.width, config.text.heads) == (30, 2)


def test_gelu_and_epsilon(small_config):
    settings = hf_config(small_config)
    for tower in ("text_config", "vision_config"):
        settings[tower] |= {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
    config = hf_clip.translate(settings, None, "x")
    assert (config.activation, config.layer_norm_epsilon) == ("gelu", 1e-6)


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_image_settings(tmp_path, small_config, name):
    folder = hf_folder(tmp_path / "hf", small_config)
    (folder / "preprocessor_config.json").unlink()
    settings = {
        "size": {"shortest_edge": 24},
        "crop_size": {"height": 24, "width": 24},
        "resample": 2,
        "image_std": [0.4, 0.5, 0.6],
    }
    if name == "processor_config.json":  # as transformers 5 writes it
        settings = {"image_processor": settings, "processor_class": "CLIPProcessor"}
    (folder / name).write_text(json.dumps(settings))
    image = hf_clip.read(folder).config["image"]
    assert image["std"] == (0.4, 0.5, 0.6)
    assert (image["resample"], image["crop"]) == ("bilinear", "resize_then_crop")
