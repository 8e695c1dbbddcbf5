"""What a layer keeps of a segment: no more than its mask can see, and never less."""

import dataclasses

import numpy as np
import pytest

from clip_jax import Compute
from rudolph_jax import PRESETS
from rudolph_jax.cache_window import window
from rudolph_jax.decode import SamplerConfig
from rudolph_jax.layout import Layout
from rudolph_jax.masks import KINDS, layer_kinds, mask

SMALL = {"left_text_length": 3, "image_tokens_per_side": 5, "right_text_length": 4}


def sizes(config, kind):
    found = window(config, kind, "image")
    return found.slots, found.size


def test_the_slots_of_the_docstring(tiny_config):
    config = dataclasses.replace(tiny_config, image_tokens_per_side=2)
    row = window(config, "row", "image")
    assert row.slot.tolist() == [0, 1, 2, 0] and sizes(config, "row") == (3, 3)
    column = window(config, "column", "image")
    assert column.slot.tolist() == [0, 2, 1, 3] and sizes(config, "column") == (4, 2)
    assert column.first.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("changes", [{}, {"bos_prefix": True}, {"conv_edges": "wrap"}])
@pytest.mark.parametrize("trimmed", [True, False])
def test_what_is_looked_at_is_what_the_mask_allows(tiny_config, kind, changes, trimmed):
    config = dataclasses.replace(tiny_config, **SMALL, **changes)
    layout = Layout(config)
    begin = layout.image.start + layout.prefix
    found, allowed = window(config, kind, "image", trimmed), mask(config, kind)
    cache = np.full(found.slots, -1)
    for place in range(layout.image_length - layout.prefix):
        cache[found.slot[place]] = place
        first = found.first[place]
        seen = cache[first : first + found.size][found.allowed[place]]
        expected = np.flatnonzero(allowed[begin + place, begin : layout.image.stop])
        assert sorted(seen) == expected.tolist()


def test_published_sizes_keep_few_keys():
    """Slots kept and looked at, of 256, 1,024 and 576 tokens of a picture."""
    assert [sizes(PRESETS["350M"], kind) for kind in KINDS[:4]] == [
        (17, 17), (256, 16), (52, 52), (69, 69),
    ]  # fmt: skip
    assert [sizes(PRESETS["1.3B"], kind) for kind in KINDS[:4]] == [
        (33, 33), (1024, 32), (133, 133), (166, 166),
    ]  # fmt: skip
    assert sizes(PRESETS["2.7B"], "row") == (25, 25)


def test_text_keeps_all(tiny_config):
    plan = SamplerConfig(tiny_config, Compute(), "right", 1)
    for kind in set(layer_kinds(tiny_config)):
        assert plan.window(kind).slots == plan.window(kind).size == tiny_config.right_text_length
