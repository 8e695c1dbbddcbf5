import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax import Compute
from clip_jax.layers import unstack_layers
from rudolph_jax import PRESETS, Rudolph, RudolphConfig
from rudolph_jax.config import MaskType
from rudolph_jax.decode import SamplerConfig, SamplerInputs, generate
from rudolph_jax.layout import Layout
from rudolph_jax.masks import layer_mask_types, mask
from rudolph_jax.sampling import SamplingParams


def config(left=1, side=2, right=1, **changes):
    sizes = {
        "left_text_length": left, "image_tokens_per_side": side, "right_text_length": right,
        "text_vocab_size": 4, "image_vocab_size": 4, "width": 4, "layers": 8, "heads": 1,
        "kernel_size": 1, "last_kernel_size": 3,
    }  # fmt: skip
    return RudolphConfig(**{**sizes, **changes})


def matrix(text):
    return np.array([[mark == "1" for mark in line.split()] for line in text.strip().splitlines()])


def test_the_matrices_of_the_docstring():
    row = """
        1 . . . . .
        1 1 . . . .
        1 1 1 . . .
        1 1 1 1 . .
        1 . 1 1 1 .
        1 1 1 1 1 1
    """
    column = """
        1 . . . . .
        1 1 . . . .
        1 . 1 . . .
        1 1 . 1 . .
        1 . 1 . 1 .
        1 1 1 1 1 1
    """
    conv = """
        1 . . . . .
        1 1 . . . .
        1 . 1 . . .
        1 . . 1 . .
        1 . . . 1 .
        1 1 1 1 1 1
    """
    causal = """
        1 . . . . .
        1 1 . . . .
        1 1 1 . . .
        1 1 1 1 . .
        1 1 1 1 1 .
        1 1 1 1 1 1
    """
    matrices = {"row": row, "column": column, "conv": conv, "causal": causal}
    for kind, expected in matrices.items():
        np.testing.assert_array_equal(mask(config(), kind), matrix(expected))


def test_a_convolution_ends_at_the_edge_or_goes_round_it():
    """The last token of a 4x4 image, kernel 3: cells that it sees, by row of the picture."""
    clamp = config(side=4, right=0, last_kernel_size=3)
    wrap = dataclasses.replace(clamp, conv_edges="wrap")
    seen = mask(clamp, "last_conv")[-1, 1:].reshape(4, 4).astype(int)
    np.testing.assert_array_equal(seen, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    seen = mask(wrap, "last_conv")[-1, 1:].reshape(4, 4).astype(int)
    np.testing.assert_array_equal(seen, [[1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 1], [1, 0, 1, 1]])


@pytest.mark.parametrize("everything", [True, False])
def test_an_own_mask_is_made_causal_and_lets_each_token_see_itself(everything):
    def attends(query, key, side):
        return np.full(query.shape, everything)

    own = config(side=3, custom_mask=MaskType("own", attends), mask_order="own")
    image = mask(own, "own")[Layout(own).image, Layout(own).image]
    np.testing.assert_array_equal(image, np.tri(9, dtype=bool) if everything else np.eye(9) == 1)


@pytest.mark.parametrize("kind", ["row", "column", "conv", "last_conv", "causal"])
@pytest.mark.parametrize("sizes", [(3, 4, 5), (2, 5, 0), (1, 1, 1)])
def test_every_mask_is_causal_and_lets_text_see_everything(kind, sizes):
    made = config(*sizes, kernel_size=3)
    allowed, layout = mask(made, kind), Layout(made)
    assert allowed.shape == (layout.sequence_length, layout.sequence_length)
    assert not np.triu(allowed, 1).any() and allowed.diagonal().all()
    causal = np.tril(np.ones_like(allowed))
    np.testing.assert_array_equal(allowed[layout.left], causal[layout.left])
    np.testing.assert_array_equal(allowed[layout.right], causal[layout.right])
    np.testing.assert_array_equal(allowed[:, layout.left], causal[:, layout.left])


def test_the_layer_rule():
    assert layer_mask_types(PRESETS["350M"]).count("row") == 12
    assert layer_mask_types(PRESETS["2.7B"]).count("conv") == 7
    assert layer_mask_types(config(layers=8)) == (
        "row", "column", "row", "conv", "row", "column", "row", "last_conv"
    )  # fmt: skip
    # A last layer that the column rule takes stays one: the rule comes first in the original.
    assert layer_mask_types(config(layers=6))[-1] == "column"
    assert layer_mask_types(config(layers=5))[-1] == "last_conv"
    rudalle = layer_mask_types(PRESETS["malevich"])
    assert set(rudalle[:-1]) == {"row", "column"} and rudalle[-1] == "last_conv"


@pytest.mark.parametrize("kind", ["row", "column", "conv", "causal"])
def test_one_kind_for_all_layers(kind):
    assert layer_mask_types(config(layers=6, mask_order=kind)) == (kind,) * 6


def test_a_causal_model_draws_what_its_logits_say(tiny_config, tiny_params, tiny_ids):
    """Compares the codes of the cached sampler at temperature 0 with the argmax of the logits."""
    model = dataclasses.replace(tiny_config, mask_order="causal", layers=2)
    params, layout = unstack_layers(tiny_params(model)), Layout(model)
    codes = generate(SamplerConfig(model, Compute(), "image", samples=1), params, SamplerInputs(
        prompts=jnp.asarray(tiny_ids[None, :, layout.left]),
        start=jnp.int32(layout.left.stop),
        stop=jnp.int32(layout.image_length),
        forced_tokens=jnp.full((len(tiny_ids), layout.image_length), -1),
        allowed_tokens=jnp.ones(1, bool),
        keys=jax.random.split(jax.random.key(0), len(tiny_ids)),
        sampling=SamplingParams(temperature=0.0).to_arrays(),
        guidance_weight=jnp.float32(0),
    ))  # fmt: skip
    ids = np.concatenate([tiny_ids[:, layout.left], codes], axis=1)
    logits = jax.jit(Rudolph(model, stacked=False).apply)({"params": params}, ids)
    before = slice(layout.image.start - 1, layout.image.stop - 1)
    np.testing.assert_array_equal(codes, logits[:, before, layout.code_logits].argmax(axis=-1))
