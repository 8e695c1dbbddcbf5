"""Tests of products whose operands are rounded to 8-bit floats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_jax.config import Compute
from clip_jax.fp8 import fp8_products, round_gradient, round_operands
from clip_jax.model import Clip

FLOATS = st.floats(-(2.0**99), 2.0**99, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=12), st.lists(FLOATS, min_size=1, max_size=12))
def test_operands_are_the_nearest_8_bit_floats_of_their_own_scale(x, kernel):
    given_arrays = [np.array(each, np.float32) for each in (x, kernel)]
    with fp8_products(True):
        found = round_operands(*map(jnp.asarray, given_arrays))
    for values, rounded in zip(given_arrays, found, strict=True):
        largest = np.abs(values).max()
        if largest < 1e-30:  # its scale is too small to be divided by
            assert np.abs(rounded).max() <= 2 * largest
            continue
        # Half of the gap between two neighbours: 3 bits after the point, and 2**-10 at the bottom.
        gap = np.maximum(np.abs(values) / 16, largest / 448 * 2**-10)
        assert (np.abs(rounded - values) <= gap * (1 + 1e-5)).all()
        assert np.abs(rounded).max() == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_values_have_three_bits_and_gradients_two(dtype):
    x = jnp.asarray([448.0, 17.0, 19.0, -1.06, 0.0], dtype)
    with fp8_products(True):
        rounded, _ = round_operands(x, x)
        _, back = jax.vjp(round_gradient, x)
        straight = jax.grad(lambda x: round_operands(x, x)[0].sum())(x)
    assert rounded.dtype == dtype
    np.testing.assert_array_equal(rounded, np.array([448, 16, 20, -1, 0], dtype))
    # The largest of e5m2 is 57,344 = 128 * 448.
    np.testing.assert_array_equal(back(x)[0], np.array([448, 16, 20, -1, 0], dtype))
    eighth = jnp.asarray([448.0, 18.0, 22.0, -1.1, 0.0], dtype)
    np.testing.assert_array_equal(
        np.asarray(back(eighth)[0], np.float32), np.array([448, 16, 24, -1, 0], np.float32)
    )
    np.testing.assert_array_equal(straight, np.ones(5, dtype))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_what_is_not_finite_stays_so(bad):
    x = jnp.asarray([1.0, bad])
    with fp8_products(True):
        rounded, kernel = round_operands(x, jnp.ones(2))
    assert np.isnan(rounded).all() and (kernel == 1).all()


def test_nothing_is_rounded_outside_of_the_context(rng):
    x, kernel = jnp.asarray(rng.standard_normal((2, 9), np.float32))
    function = jax.jit(lambda x, kernel: round_gradient(round_operands(x, kernel)[0]))
    with fp8_products(True):
        assert (function(x, kernel) != x).any()
    np.testing.assert_array_equal(function(x, kernel), x)
    with fp8_products(False):
        np.testing.assert_array_equal(function(x, kernel), x)


def test_devices_of_pmap_share_a_scale(rng):
    x = jnp.asarray(rng.standard_normal((8, 5), np.float32)) * jnp.arange(1, 9)[:, None]
    kernel = jnp.ones(3)

    def each(x):
        with fp8_products(True, "devices"):
            rounded, _ = round_operands(x, kernel)
            _, back = jax.vjp(round_gradient, x)
        return rounded, back(x)[0]

    found = jax.pmap(each, "devices")(x)
    with fp8_products(True):
        wanted = round_operands(x, kernel)[0], jax.vjp(round_gradient, x)[1](x)[0]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_tower_is_near_its_whole_products(small_config, rng):
    """Each of its linear maps is rounded, and by no more than three bits explain."""
    model = Clip(small_config, Compute())
    size = small_config.vision.image_size
    images = jnp.asarray(rng.standard_normal((4, size, size, 3), np.float32))
    ids = jnp.asarray(rng.integers(1, 50, (4, small_config.text.context_length)))
    params = model.init(jax.random.key(0), ids, images)["params"]

    def features(params):
        out = model.apply({"params": params}, images, method="encode_image")
        return out / jnp.linalg.norm(out, axis=-1, keepdims=True)

    def loss(params):
        return (features(params) * jnp.arange(features(params).size).reshape(4, -1)).sum()

    plain, gradients = features(params), jax.grad(loss)(params)
    with fp8_products(True):
        rounded, changed = features(params), jax.grad(loss)(params)
    assert 1e-4 < np.abs(rounded - plain).max() < 0.1
    layers = (gradients["visual"]["layers"], changed["visual"]["layers"])
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(layers[0]), jax.tree.leaves(layers[1]), strict=True
    ):
        if "kernel" in path[-1].key:
            of_layers = [np.reshape(each, (len(each), -1)) for each in (a, a - b)]
            norm, difference = (np.linalg.norm(each, axis=1) for each in of_layers)
            assert (difference > 1e-3 * norm).all() and (difference < 0.4 * norm).all(), path
