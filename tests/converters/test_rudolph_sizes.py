"""The config that is read off tensors, for every published size; no arrays but the masks."""

import dataclasses

import numpy as np
import pytest
from decoders import shapes_alone, source_shapes

from clip_jax.errors import InputError
from converters import rudalle, rudolph
from converters.rudolph_checkpoint import infer
from converters.rudolph_tables import (
    RUDALLE,
    RUDOLPH,
    Sizes,
    mask_kernel_size,
    parameter_shapes,
    read_sizes,
    smallest_equivalent_kernel,
)
from rudolph_jax.config import PRESETS, RudolphConfig
from rudolph_jax.masks import mask

FAMILIES = dict.fromkeys(rudolph.PRESETS, rudolph.MODEL_FAMILY)
FAMILIES |= dict.fromkeys(rudalle.PRESETS, rudalle.MODEL_FAMILY)
SMALL = RudolphConfig(5, 6, 4, 90, 30, 24, 3, 2, kernel_size=3, last_kernel_size=5)


def test_each_preset_belongs_to_one_kind():
    assert set(FAMILIES) == set(PRESETS)
    assert rudolph.PRESETS == ("350M_v1", "350M", "1.3B", "2.7B", "2.7B_fbc2", "tiny")
    assert rudalle.PRESETS == ("malevich", "malevich_v2", "kandinsky")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("350M_v1", 353_065_024),
        ("350M", 354_638_656),
        ("1.3B", 1_319_327_936),
        ("2.7B", 2_657_731_968),
        ("2.7B_fbc2", 2_657_731_968),
    ],
)
def test_parameters_of_the_published_models(name, count):
    shapes = source_shapes(RUDOLPH, PRESETS[name]).values()
    assert sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes) == count


@pytest.mark.parametrize("name", FAMILIES)
def test_sizes_of_a_config_are_those_of_its_tensors(name):
    config, family = PRESETS[name], FAMILIES[name]
    sizes = read_sizes(family.names, source_shapes(family.names, config), "x.bin")
    assert sizes == Sizes.of(config)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "tiny"])
def test_a_published_model_is_recognised(name):
    config, family = PRESETS[name], FAMILIES[name]
    found, preset = infer(family, shapes_alone(family.names, config))
    assert found == config
    assert preset == {"2.7B_fbc2": "2.7B"}.get(name, name)  # these two are alike


@pytest.mark.parametrize("name", ["350M_v1", "350M", "1.3B", "2.7B", "kandinsky"])
def test_without_mask_buffers_the_kernels_are_the_preset_s(name):
    config, family = PRESETS[name], FAMILIES[name]
    assert infer(family, shapes_alone(family.names, config, masks=False))[0] == config


def test_malevich_without_mask_buffers_is_one_of_two():
    weights = shapes_alone(RUDALLE, PRESETS["malevich"], masks=False)
    with pytest.raises(InputError, match="its tensors fit malevich, malevich_v2 alike"):
        infer(rudalle.MODEL_FAMILY, weights)


def test_other_kernels_are_read_off_the_buffers():
    config = dataclasses.replace(PRESETS["350M"], kernel_size=11, last_kernel_size=5)
    assert infer(rudolph.MODEL_FAMILY, shapes_alone(RUDOLPH, config)) == (config, "350M")


@pytest.mark.parametrize(
    "change",
    [
        {"width": 1088},
        {"layers": 23},
        {"left_text_length": 65},
        {"right_text_length": 63},
        {"text_special_tokens": 383},
        {"image_special_tokens": 385},
        {"sandwich_norm": False},
    ],
)
def test_what_differs_in_any_size_is_not_recognised(change):
    config = dataclasses.replace(PRESETS["350M"], **change)
    with pytest.raises(InputError, match="no published model has its sizes") as caught:
        infer(rudolph.MODEL_FAMILY, shapes_alone(RUDOLPH, config))
    assert f"width {config.width}, layers {config.layers}" in str(caught.value)
    assert "kernel_size 7, last_kernel_size 9" in str(caught.value)


@pytest.mark.parametrize("edges", ["clamp", "wrap"])
@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9, 11, 13])
@pytest.mark.parametrize("dtype", [bool, np.float16])
def test_the_smallest_kernel_with_that_mask(edges, kernel, dtype):
    config = dataclasses.replace(SMALL, conv_edges=edges, kernel_size=kernel)
    whole = mask(config, "conv")
    weights = shapes_alone(RUDOLPH, config)
    weights.tensors["transformer.conv_mask"] = whole.astype(dtype)
    found = mask_kernel_size(
        weights, "transformer.conv_mask", SMALL if edges == "clamp" else config
    )
    assert found == smallest_equivalent_kernel(kernel, config) <= kernel
    same = [
        k for k in range(1, 15, 2)
        if np.array_equal(mask(dataclasses.replace(config, kernel_size=k), "conv"), whole)
    ]  # fmt: skip
    assert found == same[0]


def test_what_is_no_convolution_mask_has_no_kernel():
    weights = shapes_alone(RUDOLPH, SMALL)
    assert mask_kernel_size(weights, "transformer.row_mask", SMALL) is None
    assert mask_kernel_size(weights, "transformer.no_mask", SMALL) is None
    larger = dataclasses.replace(SMALL, left_text_length=6)
    assert mask_kernel_size(weights, "transformer.conv_mask", larger) is None


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("image_row_embeddings.weight", None, "tensor 'image_row_embeddings.weight' is missing"),
        ("r_text_pos_embeddings.weight", None, "'r_text_pos_embeddings.weight' is missing"),
        ("text_embeddings.weight", (3,), "'text_embeddings.weight' has shape [3]; expected 2 axes"),
        ("l_text_pos_embeddings.weight", (1, 24), "has shape [1, 24]; expected 2 axes, 2 or more"),
    ],
)
def test_tensors_that_tell_no_size(name, shape, expected):
    shapes = source_shapes(RUDOLPH, SMALL) | {name: shape}
    shapes = {name: shape for name, shape in shapes.items() if shape}
    with pytest.raises(InputError) as caught:
        read_sizes(RUDOLPH, shapes, "x.bin")
    assert expected in str(caught.value)


def test_the_table_has_a_row_for_each_parameter():
    """Try every variety; `resolve_rules`, called by `source_shapes`, refuses idle rows as well."""
    for sandwich in (False, True):
        config = dataclasses.replace(SMALL, sandwich_norm=sandwich)
        assert len(source_shapes(RUDOLPH, config)) == len(parameter_shapes(config))
