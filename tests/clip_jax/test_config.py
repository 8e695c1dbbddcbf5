import dataclasses
import json

import jax
import numpy as np
import pytest

from clip_jax import (
    PRESETS,
    RUCLIP_SMALL,
    ClipConfig,
    Compute,
    InputError,
    RuclipSmall,
    RuclipSmallConfig,
    VisionConfig,
)
from clip_jax.model import abstract_params

PUBLISHED_PARAMETERS = {
    "ruclip-vit-base-patch32-224": 151_277_313,
    "ruclip-vit-base-patch16-224": 149_620_737,
    "ruclip-vit-large-patch14-224": 427_616_513,
    "ruclip-vit-base-patch32-384": 151_350_273,
    "ruclip-vit-large-patch14-336": 427_944_193,
    "ruclip-vit-base-patch16-384": 149_912_577,
}


@pytest.mark.parametrize("name", PUBLISHED_PARAMETERS)
def test_parameter_counts_are_the_published_ones(name):
    leaves = jax.tree.leaves(abstract_params(PRESETS[name]))
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == PUBLISHED_PARAMETERS[name]


def test_ruclip_small_has_the_printed_count():
    leaves = jax.tree.leaves(abstract_params(RUCLIP_SMALL, RuclipSmall))
    assert sum(int(np.prod(leaf.shape)) for leaf in leaves) == 216_492_801
    data = json.loads(json.dumps(RUCLIP_SMALL.to_dict()))
    assert RuclipSmallConfig.from_dict(data) == RUCLIP_SMALL


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt_length": 2049}, r"prompt_length is 2049; expected at most .* \(2048\)"),
        ({"prompt_length": 0}, "prompt_length is 0"),
        ({"visual_width": "512"}, "visual_width is '512'"),
        ({"eos_id": 50264}, "eos_id is 50264"),
    ],
)
def test_impossible_sizes_of_ruclip_small_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(RUCLIP_SMALL, **change)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = PRESETS[name]
    assert ClipConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_unknown_and_missing_keys_are_named():
    data = PRESETS["tiny"].to_dict()
    data["vision"]["image_resolution"] = data["vision"].pop("image_size")
    with pytest.raises(InputError, match=r"unknown vision.image_resolution, missing vision.image_"):
        ClipConfig.from_dict(data)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vision", {"heads": 5}, "vision.width is 128, not a multiple of vision.heads"),
        ("vision", {"patch_size": 7}, "image_size is 32, not a multiple"),
        ("vision", {"layers": 0}, "vision.layers is 0"),
        ("vision", {"layers": "3"}, "vision.layers is '3'"),
        ("text", {"vocab_size": 3}, "eos_id is 3"),
        (None, {"activation": "relu"}, "activation is 'relu'"),
        (None, {"embed_dim": 0}, "embed_dim is 0"),
    ],
)
def test_impossible_sizes_are_refused(part, change, message):
    config = PRESETS["tiny"]
    with pytest.raises(InputError, match=message):
        if part:
            dataclasses.replace(
                config, **{part: dataclasses.replace(getattr(config, part), **change)}
            )
        else:
            dataclasses.replace(config, **change)


def test_unknown_compute_is_refused():
    with pytest.raises(InputError, match="dtype is 'float8'"):
        Compute(dtype="float8")
    with pytest.raises(InputError, match="remat"):
        Compute(remat="all")


def test_tokens_count_the_class_token():
    vision = VisionConfig(image_size=24, patch_size=8, width=8, layers=1, heads=1, mlp_width=8)
    assert vision.tokens == 10
