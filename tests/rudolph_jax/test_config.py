import dataclasses
import json
import math

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rudolph_jax import PRESETS, VQGAN_PRESETS, InputError, RudolphConfig, VqganConfig
from rudolph_jax.layout import BOS, EOS, PAD, SPECIAL_TOKENS, UNK, Layout
from rudolph_jax.model import abstract_params

PARAMETERS = {
    "350M_v1": 353_065_024,
    "350M": 354_638_656,
    "1.3B": 1_319_327_936,
    "2.7B": 2_657_731_968,
    "2.7B_fbc2": 2_657_731_968,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_sizes(name):
    shapes = jax.tree.leaves(abstract_params(PRESETS[name]))
    assert sum(math.prod(leaf.shape) for leaf in shapes) == PARAMETERS[name]


def test_configs_survive_json():
    for config in PRESETS.values():
        again = json.loads(json.dumps(config.to_dict()))
        assert RudolphConfig.from_dict(again) == config
    for config in VQGAN_PRESETS.values():
        again = json.loads(json.dumps(config.to_dict()))
        assert VqganConfig.from_dict(again) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 130}, "width is 130, not a multiple of heads"),
        ({"layers": 0}, "layers is 0; expected a positive integer"),
        ({"kernel_size": 4}, "kernel_size is 4; expected an odd number"),
        ({"right_text_length": -1}, "right_text_length is -1"),
        ({"text_vocab_size": 3}, "expected room for PAD, UNK, BOS, EOS"),
        ({"mask_order": "dalle"}, "expected one of rudolph, rudalle"),
        ({"output_dropout": 1.0}, "output_dropout is 1.0"),
    ],
)
def test_impossible_sizes_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(PRESETS["tiny"], **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": 20}, "multiple of norm_groups"),
        ({"attention_levels": (4,)}, "expected numbers below 4"),
        ({"channel_multipliers": ()}, "expected positive integers"),
    ],
)
def test_impossible_image_tokenizers_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(VQGAN_PRESETS["gumbelf8"], **changes)


def test_the_layout_of_350m():
    layout = Layout(PRESETS["350M"])
    assert (layout.left, layout.image, layout.right) == (
        slice(0, 64), slice(64, 320), slice(320, 384)
    )  # fmt: skip
    assert (layout.num_text_ids, layout.num_image_ids) == (16384 + 384 + 64, 8192 + 384)
    assert layout.code_logits == slice(16832, 16832 + 8192)
    assert layout.vocab_size == layout.num_text_ids + layout.num_image_ids
    # The ids that the published models were trained with.
    assert [layout.special_id(name) for name in SPECIAL_TOKENS[:6]] == list(range(16384, 16390))
    assert layout.special_id("RT_REC") == 16400


SIZES = st.builds(
    lambda left, side, right, text, image, specials: RudolphConfig(
        left, side, right, text, image, width=2, layers=1, heads=1,
        text_special_tokens=specials[0], image_special_tokens=specials[1],
    ),
    st.integers(1, 9), st.integers(1, 6), st.integers(0, 9), st.integers(4, 40),
    st.integers(1, 40), st.tuples(st.integers(0, 17), st.integers(0, 5)),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_segments_and_ids_follow_one_another(config):
    layout = Layout(config)
    parts = (layout.left, layout.image, layout.right)
    lengths = (
        config.left_text_length, config.image_tokens_per_side**2, config.right_text_length
    )  # fmt: skip
    assert [part.stop - part.start for part in parts] == list(lengths)
    assert [part.start for part in parts] == [0, layout.left.stop, layout.image.stop]
    assert layout.sequence_length == sum(lengths)
    for length in range(1, sum(lengths) + 1):
        counts = layout.segment_lengths(length)
        positions = range(length)
        assert counts == tuple(len(positions[part]) for part in parts)
    # Ids of text, then of images: pieces, special tokens, pads; codes, special tokens.
    pieces, specials = config.text_vocab_size, config.text_special_tokens
    assert layout.text_pad_offset == pieces + specials
    assert layout.text_logits == slice(0, pieces + specials + config.left_text_length)
    codes, stop = layout.code_logits, layout.text_logits.stop
    assert codes == slice(stop, stop + config.image_vocab_size)
    assert layout.image_logits == slice(codes.start, codes.stop + config.image_special_tokens)
    assert layout.image_logits.stop == layout.vocab_size
    assert layout.num_text_ids + layout.num_image_ids == layout.vocab_size
    for index, name in enumerate(SPECIAL_TOKENS):
        if index < specials:
            assert layout.special_id(name) == pieces + index
        else:
            with pytest.raises(InputError, match=f"is number {index}; this model has only"):
                layout.special_id(name)


def test_ids_that_every_vocabulary_begins_with():
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)


@pytest.mark.parametrize("prefix", [False, True])
def test_a_prefix_is_one_position(prefix):
    config = dataclasses.replace(PRESETS["tiny"], right_text_length=0, bos_prefix=prefix)
    assert Layout(config).num_prefix_tokens == prefix


@pytest.mark.parametrize("name", [3, None, ["LT_T2I"]])
def test_a_special_token_is_named_by_a_text(name):
    with pytest.raises(InputError, match="special_token is .*; expected one of LT_UNK"):
        Layout(PRESETS["350M"]).special_id(name)


def test_a_model_without_special_tokens_says_so():
    with pytest.raises(InputError, match="special token LT_T2I is number 2; this model has only 0"):
        Layout(PRESETS["350M_v1"]).special_id("LT_T2I")
    with pytest.raises(InputError, match="expected one of LT_UNK"):
        Layout(PRESETS["350M"]).special_id("LT_XYZ")


@pytest.mark.parametrize(
    ("length", "parts"), [(1, (1, 0, 0)), (64, (64, 0, 0)), (70, (64, 6, 0)), (384, (64, 256, 64))]
)
def test_segment_lengths(length, parts):
    assert Layout(PRESETS["350M"]).segment_lengths(length) == parts


@pytest.mark.parametrize("length", [0, 385])
def test_lengths_beyond_the_sequence_are_refused(length):
    with pytest.raises(InputError, match=f"input_ids are {length} long; expected 1 to 384"):
        Layout(PRESETS["350M"]).segment_lengths(length)
