"""CLIPConfig in our words: defaults, older spellings, the legacy EOS, where pixels come from."""

import json

import pytest
from foreign import hf_config, hf_folder

from clip_jax import PRESETS, ImageConfig, InputError
from converters import hf_clip, ruclip


def test_transformers_defaults_are_clip_vit_base_patch32():
    config = hf_clip.from_original({}, None, "x")
    expected = PRESETS["clip-vit-base-patch32"]
    assert (config.vision, config.text, config.image) == (
        expected.vision,
        expected.text,
        expected.image,
    )
    assert (config.embed_dim, config.bos_id, config.eos_id) == (512, 49406, 49407)


def test_legacy_eos_is_the_highest_id(small_config):
    settings = hf_config(small_config)
    settings["text_config"] |= {"bos_token_id": 0, "eos_token_id": 2}
    config = hf_clip.from_original(settings, None, "x")
    assert (config.bos_id, config.eos_id) == (58, 59)


def test_older_dicts_replace_the_newer_ones(small_config):
    settings = hf_config(small_config)
    settings["text_config_dict"] = settings["text_config"] | {"hidden_size": 30}
    settings["text_config"] = {"hidden_size": 24, "num_attention_heads": 24}
    config = hf_clip.from_original(settings, None, "x")
    assert (config.text.width, config.text.heads) == (30, 2)


def test_gelu_and_epsilon(small_config):
    settings = hf_config(small_config)
    for tower in ("text_config", "vision_config"):
        settings[tower] |= {"hidden_act": "gelu", "layer_norm_eps": 1e-6}
    config = hf_clip.from_original(settings, None, "x")
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


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_nulls_are_absent_keys(tmp_path, small_config, name):
    """transformers writes null for a default: at every level of every file."""
    folder = hf_folder(tmp_path / "hf", small_config)
    (folder / "preprocessor_config.json").unlink()
    keys = (
        "size crop_size resample image_mean image_std rescale_factor do_resize do_center_crop "
        "do_rescale do_normalize do_convert_rgb data_format device"
    )
    settings = dict.fromkeys(keys.split())
    for given in (
        settings,
        settings | {"size": {"shortest_edge": None}, "crop_size": {"height": None, "width": None}},
        settings | {"size": {"shortest_edge": 24, "longest_edge": None, "height": None}},
        settings | {"crop_size": {"height": 24, "width": 24, "shortest_edge": None}},
    ):
        content = given if name.startswith("pre") else {"image_processor": given}
        (folder / name).write_text(json.dumps(content))
        image = hf_clip.read(folder).config["image"]
        expected = PRESETS["clip-vit-base-patch32"].image
        assert (image["mean"], image["std"]) == (expected.mean, expected.std)
        assert (image["resample"], image["crop"]) == ("bicubic", "resize_then_crop")
    (folder / name).write_text(json.dumps({"image_processor": None}))
    hf_clip.read(folder)


def test_nulls_in_the_config_are_absent_keys(small_config):
    settings = hf_config(small_config)
    expected = hf_clip.from_original(settings, None, "x")
    for tower in ("text_config", "vision_config"):
        settings[tower] |= {"hidden_act": None, "layer_norm_eps": None, "initializer": None}
        settings[f"{tower}_dict"] = None
    settings |= {"model_type": None, "logit_scale_init_value": None}
    assert hf_clip.from_original(settings, None, "x") == expected
    everything = {"text_config": None, "vision_config": None, "projection_dim": None}
    assert hf_clip.from_original(everything, None, "x") == hf_clip.from_original({}, None, "x")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"image_mean": ["a", "b", "c"]}, "image_mean is ['a', 'b', 'c']; expected three numbers"),
        ({"image_mean": "abc"}, "image_mean is 'abc'"),
        ({"image_mean": 0.5}, "image_mean is 0.5"),
        ({"image_mean": [0.5, 0.5, None]}, "image_mean is [0.5, 0.5, None]"),
        ({"image_mean": {"r": 1}}, "image_mean is of type dict"),
        ({"image_mean": [True, 0, 0]}, "image_mean is [True, 0, 0]"),
        ({"image_mean": [float("nan"), 0, 0]}, "image_mean is [nan, 0, 0]"),
        ({"image_std": [0, 0, 0]}, "image_std is [0, 0, 0]; expected three positive numbers"),
        ({"image_std": [1, 1, -1]}, "image_std is [1, 1, -1]; expected three positive"),
        ({"image_std": [float("inf"), 1, 1]}, "image_std is [inf, 1, 1]"),
        ({"resample": "bicubic"}, "resample is 'bicubic'; expected one of 2 (bilinear)"),
        ({"resample": [3]}, "resample is [3]"),
        ({"resample": True}, "resample is True"),
        ({"resample": 0}, "resample is 0"),
        ({"rescale_factor": "1/255"}, "rescale_factor is '1/255'; expected 1/255"),
        ({"rescale_factor": [1]}, "rescale_factor is [1]"),
        ({"do_resize": "true"}, "do_resize is 'true'; expected true"),
        ({"do_normalize": 1}, "do_normalize is 1; expected true"),
        ({"size": [24, 24]}, "size is [24, 24]"),
        ({"size": "24"}, "size is '24'"),
        ({"crop_size": {"height": 24, "width": "24"}}, "crop_size [24, '24']"),
        ({"crop_size": [24]}, "crop_size [[24], [24]]"),
    ],
)
def test_image_settings_of_a_wrong_kind_name_the_field(tmp_path, small_config, changes, expected):
    folder = hf_folder(tmp_path / "hf", small_config)
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": 24, **changes}))
    with pytest.raises(InputError) as caught:
        hf_clip.read(folder)
    assert f"preprocessor_config.json: {expected}" in str(caught.value).replace(
        "size is 24, crop", "crop"
    )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"image_processor": 3}, "image_processor is 3; expected an object"),
        ({"image_processor": {"image_mean": 1}}, "processor_config.json: image_mean is 1"),
    ],
)
def test_a_processor_config_of_a_wrong_kind(tmp_path, small_config, content, expected):
    folder = hf_folder(tmp_path / "hf", small_config)
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=expected):
        hf_clip.read(folder)


@pytest.mark.parametrize("value", [0.0, -1e-5, float("nan"), float("inf")])
def test_an_epsilon_that_no_norm_has(small_config, value):
    settings = hf_config(small_config)
    for tower in ("text_config", "vision_config"):
        settings[tower]["layer_norm_eps"] = value
    with pytest.raises(InputError, match="layer_norm_eps is"):
        hf_clip.from_original(settings, None, "x")


def test_ruclip_s_own_statistics(goldens):
    original = json.loads((goldens / "ruclip" / "config.json").read_text())
    config = ruclip.from_original(original | {"mean": None, "std": []}, "x")
    assert config.image == ImageConfig(background=None)
    for name, value in (("std", [0, 1, 1]), ("mean", [float("nan"), 0, 0]), ("std", "abc")):
        with pytest.raises(InputError, match=f"x: {name} is"):
            ruclip.from_original(original | {name: value}, "x")
