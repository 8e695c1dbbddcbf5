"""The cache window holds what a layer's mask allows, no less and no more."""

import dataclasses

import numpy as np
import pytest

from clip_jax import Compute
from rudolph_jax import PRESETS
from rudolph_jax.cache_window import cache_window
from rudolph_jax.decode import SamplerConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import MASK_TYPES, layer_mask_types, mask

SMALL = {"left_text_length": 3, "image_tokens_per_side": 5, "right_text_length": 4}


def sizes(config, mask_type):
    found = cache_window(config, mask_type, "image")
    return found.num_slots, found.size


def test_slots_are_those_of_the_docstring(tiny_config):
    config = dataclasses.replace(tiny_config, image_tokens_per_side=2)
    row = cache_window(config, "row", "image")
    assert row.slot_of.tolist() == [0, 1, 2, 0] and sizes(config, "row") == (3, 3)
    column = cache_window(config, "column", "image")
    assert column.slot_of.tolist() == [0, 2, 1, 3] and sizes(config, "column") == (4, 2)
    assert column.start_of.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("mask_type", MASK_TYPES)
@pytest.mark.parametrize("changes", [{}, {"bos_prefix": True}, {"conv_edges": "wrap"}])
@pytest.mark.parametrize("windowed", [True, False])
def test_the_window_holds_exactly_the_keys_that_the_mask_allows(
    tiny_config, mask_type, changes, windowed
):
    config = dataclasses.replace(tiny_config, **SMALL, **changes)
    layout = Layout(config)
    begin = layout.image.start + layout.num_prefix_tokens
    found, allowed = cache_window(config, mask_type, "image", windowed), mask(config, mask_type)
    cache = np.full(found.num_slots, -1)
    for position in range(layout.image_length - layout.num_prefix_tokens):
        cache[found.slot_of[position]] = position
        first = found.start_of[position]
        seen = cache[first : first + found.size][found.mask[position]]
        expected = np.flatnonzero(allowed[begin + position, begin : layout.image.stop])
        assert sorted(seen) == expected.tolist()


def test_published_sizes_keep_few_keys():
    """Compares slots kept, and slots attended to, of 256, 1,024 and 576 tokens of an image."""
    assert [sizes(PRESETS["350M"], mask_type) for mask_type in MASK_TYPES[:4]] == [
        (17, 17), (256, 16), (52, 52), (69, 69),
    ]  # fmt: skip
    assert [sizes(PRESETS["1.3B"], mask_type) for mask_type in MASK_TYPES[:4]] == [
        (33, 33), (1024, 32), (133, 133), (166, 166),
    ]  # fmt: skip
    assert sizes(PRESETS["2.7B"], "row") == (25, 25)


def test_text_keeps_all(tiny_config):
    sampler = SamplerConfig(tiny_config, Compute(), "right", 1)
    for mask_type in set(layer_mask_types(tiny_config)):
        assert (
            sampler.window(mask_type).num_slots
            == sampler.window(mask_type).size
            == tiny_config.right_text_length
        )
