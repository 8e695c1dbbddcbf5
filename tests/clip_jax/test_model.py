import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_jax import Clip, Compute, cpu
from clip_jax.activation import quick_gelu
from clip_jax.layers import unstack_layers
from clip_jax.model import MAX_LOGIT_SCALE, LayerNorm, _drop_patches, normalize
from clip_jax.per_example_rng import per_example_keys


@pytest.fixture(scope="module")
def inputs(small_config):
    rng = np.random.default_rng(1)
    text, size = small_config.text, small_config.vision.image_size
    ids = rng.integers(4, text.vocab_size, (3, text.context_length)).astype(np.int32)
    ids[0, 5], ids[1, 11], ids[2, 2] = 3, 3, 3
    return ids, rng.normal(size=(3, size, size, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(small_config, inputs):
    variables = jax.jit(Clip(small_config).init)(jax.random.key(0), *inputs)
    rng = np.random.default_rng(1)
    # Gains and biases too, so that no term is a no-op.
    return jax.tree.map(
        lambda x: np.asarray(x) + rng.normal(scale=0.1, size=x.shape).astype(np.float32), variables
    )


def apply(config, variables, *args, compute=Compute(), **kwargs):
    """Applies the model compiled, as users run it; op by op takes ten times as long."""
    return jax.jit(lambda v, *a: Clip(config, compute).apply(v, *a, **kwargs))(variables, *args)


def largest_difference(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(np.asarray(b)).max())


@pytest.mark.parametrize("compute", [Compute(remat="block"), Compute(unroll=2), Compute(unroll=9)])
def test_compute_settings_agree_in_values_and_gradients(small_config, variables, inputs, compute):
    def loss(variables, compute):
        image, text, scale = Clip(small_config, compute).apply(variables, *inputs)
        return (scale * image * text).sum() + image[0].sum()

    run = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    expected, found = run(variables, Compute()), run(variables, compute)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert largest_difference(a, b) < 2e-5


def test_unstacked_layers_equal_stacked_ones(small_config, variables, inputs):
    def features(variables, stacked):
        return Clip(small_config, Compute(), stacked).apply(variables, *inputs)

    lying = {"params": unstack_layers(variables["params"])}
    run = jax.jit(features, static_argnums=1)
    for a, b in zip(run(lying, False), run(variables, True), strict=True):
        assert largest_difference(a, b) < 1e-5


def test_text_is_causal_up_to_its_first_eos(small_config, variables, inputs):
    ids, _ = inputs

    def encode(ids):
        return apply(small_config, variables, ids, method="encode_text")

    changed = ids.copy()
    changed[0, 6:] = 7  # behind row 0's EOS
    changed[1, 3] += 1  # before row 1's
    before, after = np.asarray(encode(ids)), np.asarray(encode(changed))
    np.testing.assert_array_equal(before[0], after[0])
    assert largest_difference(after[1], before[1]) > 1e-3
    second_eos = ids.copy()
    second_eos[2, 9] = 3
    np.testing.assert_array_equal(before[2], np.asarray(encode(second_eos))[2])


def test_shorter_sequence_gives_the_same_text_features(small_config, variables, inputs):
    ids = inputs[0][[0, 2]]  # EOS at 5 and 2
    whole = apply(small_config, variables, ids, method="encode_text")
    cut = apply(small_config, variables, ids[:, :6], method="encode_text")
    assert largest_difference(cut, whole) < 1e-5  # two programs


def test_patches_are_read_row_by_row_channels_last(small_config, variables):
    """The first layer's input has a convolution's values at each position."""
    vision, params = small_config.vision, variables["params"]["visual"]
    rng = np.random.default_rng(2)
    pixels = rng.normal(size=(2, 24, 24, 3)).astype(np.float32)
    patches = jax.lax.conv_general_dilated(
        pixels, params["patch_embedding"]["kernel"], (8, 8), "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ).reshape(2, -1, vision.width)  # fmt: skip
    first = np.broadcast_to(params["class_embedding"], (2, 1, vision.width))
    tokens = np.concatenate([first, patches], axis=1) + params["position_embedding"]
    norm = LayerNorm(small_config.layer_norm_epsilon)
    expected = norm.apply({"params": params["pre_norm"]}, tokens)
    _, seen = Clip(small_config).apply(
        variables, pixels, method="encode_image",
        capture_intermediates=lambda module, _: module.name == "pre_norm",
    )  # fmt: skip
    (found,) = seen["intermediates"]["visual"]["pre_norm"]["__call__"]
    assert largest_difference(found, expected) < 1e-5


def test_bfloat16_compute_stays_near_float32(small_config, variables, inputs):
    low = Compute(dtype="bfloat16")
    image, text, _ = apply(small_config, variables, *inputs)
    low_image, low_text, _ = apply(small_config, variables, *inputs, compute=low)
    assert low_image.dtype == low_text.dtype == jnp.float32
    assert 1e-5 < largest_difference(low_image, image) < 0.05
    assert 1e-5 < largest_difference(low_text, text) < 0.05


@pytest.mark.parametrize("on_cpu", [True, False])
def test_layer_norm_has_float32_statistics(on_cpu):
    """In two passes on a CPU, in one elsewhere, whose sums cancel six of seven digits here."""
    x = (jnp.arange(64.0)[None] + 1000).astype(jnp.bfloat16)
    norm = LayerNorm(1e-5)
    with cpu.forms(on_cpu):
        y = norm.apply(norm.init(jax.random.key(0), x), x)
    expected = np.asarray(x, np.float32)
    expected = (expected - expected.mean()) / np.sqrt(expected.var() + 1e-5)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), expected, atol=0.01)


def test_quick_gelu():
    x = jnp.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(quick_gelu(x), [-0.154204, 0.0, 1.935659], atol=1e-5)


def test_parameters_begin_as_clip_s(small_config, inputs):
    """`clip.model.CLIP.initialize_parameters`: deviations by width and, behind a block, depth."""
    params = jax.jit(Clip(small_config).init)(jax.random.key(0), *inputs)["params"]

    def deviates(array, expected):
        count = array.size
        assert np.asarray(array).std() == pytest.approx(expected, rel=5 / np.sqrt(2 * count))

    for name, tower in (("visual", small_config.vision), ("text", small_config.text)):
        width, own, layers = tower.width, params[name], params[name]["layers"]
        residual = (2 * tower.layers) ** -0.5
        deviates(layers["attention"]["qkv_kernel"], width**-0.5)
        deviates(layers["attention"]["out_kernel"], width**-0.5 * residual)
        deviates(layers["mlp"]["in_kernel"], (2 * width) ** -0.5)
        deviates(layers["mlp"]["out_kernel"], width**-0.5 * residual)
        deviates(own["projection"], width**-0.5)
        # One layer's numbers are not another's.
        assert not np.array_equal(*layers["mlp"]["in_kernel"][:2])
    visual, text = params["visual"], params["text"]
    deviates(visual["class_embedding"], small_config.vision.width**-0.5)
    deviates(visual["position_embedding"], small_config.vision.width**-0.5)
    patch = 3 * small_config.vision.patch_size ** 2
    deviates(visual["patch_embedding"]["kernel"], patch**-0.5)
    deviates(text["token_embedding"], 0.02)
    deviates(text["position_embedding"], 0.01)
    np.testing.assert_allclose(params["logit_scale"], np.log(1 / 0.07), rtol=1e-6)
    np.testing.assert_allclose(MAX_LOGIT_SCALE, np.log(100))


def test_a_sigmoid_model_begins_with_siglip_s_scale_and_bias(small_config, inputs):
    config = dataclasses.replace(small_config, logit_bias=True)
    params = jax.jit(Clip(config).init)(jax.random.key(0), *inputs)["params"]
    np.testing.assert_allclose(params["logit_scale"], np.log(10), rtol=1e-6)
    np.testing.assert_allclose(params["logit_bias"], -10)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 5), st.floats(0.0, 0.99), st.integers(0, 2**32 - 1))
def test_dropped_patches_leave_the_class_token_and_some_in_order(patches, rate, seed):
    keys = per_example_keys(jax.random.key(seed), jnp.arange(3))
    x = jnp.tile(jnp.arange(patches + 1.0)[None, :, None], (3, 1, 2))
    found = np.asarray(_drop_patches(x, keys, rate))
    assert found.shape == (3, 1 + max(round(patches * (1 - rate)), 1), 2)
    assert (found[:, 0] == 0).all() and (np.diff(found[..., 0], axis=1) > 0).all()
    alone = _drop_patches(x[1:2], keys[1:2], rate)
    np.testing.assert_array_equal(found[1:2], alone)


def test_each_patch_is_kept_as_often_as_another():
    keys = per_example_keys(jax.random.key(0), jnp.arange(2000))
    x = jnp.tile(jnp.arange(9.0)[None, :, None], (2000, 1, 1))
    kept = np.asarray(_drop_patches(x, keys, 0.5))[:, 1:, 0].astype(int)
    assert np.bincount(kept.ravel(), minlength=9)[1:] == pytest.approx(1000, abs=5 * 500**0.5)


def test_normalized_rows_have_unit_length(rng):
    x = rng.normal(size=(3, 4, 5))
    y = np.asarray(normalize(x))
    np.testing.assert_allclose((y**2).sum(axis=-1), 1, rtol=1e-5)
    np.testing.assert_allclose(y * np.linalg.norm(x, axis=-1, keepdims=True), x, rtol=1e-5)
