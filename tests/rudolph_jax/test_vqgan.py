"""The image tokenizer's network: sizes, places of codes, numbers of parameters, ways to run it."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clip_jax.config import Compute
from clip_jax.errors import InputError
from experiments.config.run import MeshConfig
from experiments.training.partitioning import make_mesh, param_shardings
from rudolph_jax import VQGAN_PRESETS, Vqgan, VqganConfig
from rudolph_jax.vqgan import Conv, abstract_params, init_params
from rudolph_jax.vqgan_sharding import AXES

# Sizes that all differ, so that a swapped axis cannot pass.
SMALL = VqganConfig(
    channels=8,
    channel_multipliers=(1, 3),
    residual_blocks=1,
    attention_levels=(1,),
    latent_channels=6,
    codebook_size=20,
    norm_groups=4,
)
WAVELET = dataclasses.replace(SMALL, wavelet=True)


@partial(jax.jit, static_argnums=(0, 1, 2))
def run_method(config, method, compute, params, x):
    return Vqgan(config, compute).apply({"params": params}, x, method=method)


def apply(config, method, compute=Compute()):
    return partial(run_method, config, method, compute)


def random_params(config):
    rng = np.random.default_rng(1)
    shapes = abstract_params(config)
    return jax.tree.map(lambda leaf: (0.3 * rng.normal(size=leaf.shape)).astype(np.float32), shapes)


@pytest.mark.parametrize(("preset", "parameters"), [
    ("gumbelf8", 68_995_971), ("gumbelf8-dwt", 69_006_348),
])  # fmt: skip
def test_published_sizes(preset, parameters):
    """Counted in the original's own network."""
    config = VQGAN_PRESETS[preset]
    assert config.patch_size == 8
    assert sum(leaf.size for leaf in jax.tree.leaves(abstract_params(config))) == parameters


@pytest.mark.parametrize("config", [SMALL, WAVELET], ids=["plain", "wavelet"])
def test_pictures_of_any_size(config, rng):
    params = random_params(config)
    images = rng.random((2, 6, 10, 3), dtype=np.float32)
    logits = apply(config, "code_logits")(params, images)
    assert (logits.shape, logits.dtype) == ((2, 3, 5, 20), jnp.float32)
    ids = apply(config, "encode")(params, images)
    assert (ids.shape, ids.dtype) == ((2, 15), jnp.int32)
    np.testing.assert_array_equal(ids.reshape(2, 3, 5), logits.argmax(-1))
    pixels = apply(config, "decode")(params, ids.reshape(2, 3, 5))
    size = 2 if config.wavelet else 1
    assert (pixels.shape, pixels.dtype) == ((2, 6 * size, 10 * size, 3), jnp.float32)
    assert pixels.min() >= 0 and pixels.max() <= 1


def test_decoding_is_clipped_decoding_of_codebook_rows(rng):
    params = random_params(SMALL)
    codes = rng.integers(0, 20, (2, 3, 3))
    raw = apply(SMALL, "decode_latents")(params, params["codebook"][codes])
    assert raw.min() < 0 or raw.max() > 1
    found = apply(SMALL, "decode")(params, codes)
    np.testing.assert_allclose(found, raw.clip(0, 1), atol=1e-5)  # another program's rounding


def test_strided_convolution_is_padded_on_the_right_and_below():
    """Uses a kernel with one tap in its last corner, whose output i is input 2i + 2."""
    x = np.arange(1, 37, dtype=np.float32).reshape(1, 6, 6, 1)
    kernel = np.zeros((3, 3, 1, 1), np.float32)
    kernel[2, 2] = 1
    params = {"kernel": kernel, "bias": np.zeros(1, np.float32)}
    found = Conv(1, stride=2).apply({"params": params}, x)[0, ..., 0]
    np.testing.assert_array_equal(found, [[15, 17, 0], [27, 29, 0], [0, 0, 0]])


@pytest.mark.slow
def test_fresh_parameters_are_pytorchs_in_scale():
    config = dataclasses.replace(SMALL, latent_channels=24)
    params = jax.jit(lambda rng: init_params(config, rng))(jax.random.key(3))
    expected = abstract_params(config)
    jax.tree.map(lambda a, b: np.testing.assert_equal(a.shape, b.shape), params, expected)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = "/".join(key.key for key in path)
        if name.endswith("kernel"):
            fan_in = leaf.shape[0] if "qkv" in name else np.prod(leaf.shape[:-1])
            assert np.abs(leaf).max() <= fan_in**-0.5, name
            assert np.std(leaf) == pytest.approx((3 * fan_in) ** -0.5, rel=0.25), name
        elif name == "codebook":
            assert np.std(leaf) == pytest.approx(1, rel=0.1)
        else:
            assert (leaf == (1 if name.endswith("scale") else 0)).all(), name
    first, second = (init_params(SMALL, jax.random.key(seed))["codebook"] for seed in (0, 1))
    assert np.abs(first - second).min() > 0


def test_bfloat16_stays_near(rng):
    params, images = random_params(SMALL), rng.random((1, 8, 8, 3), dtype=np.float32)
    exact = apply(SMALL, "code_logits")(params, images)
    near = apply(SMALL, "code_logits", Compute(dtype="bfloat16"))(params, images)
    assert near.dtype == jnp.float32
    assert 0 < np.abs(near - exact).max() < 0.1 * np.abs(exact).max()


@partial(jax.jit, static_argnums=0)
def logit_gradient(compute, params, images):
    def loss(params):
        return Vqgan(SMALL, compute).apply({"params": params}, images, method="code_logits").std()

    return jax.grad(loss)(params)


@pytest.mark.parametrize("remat", ["block", "dots"])
def test_remat_changes_no_gradient(rng, remat):
    params, images = random_params(SMALL), rng.random((1, 4, 4, 3), dtype=np.float32)

    plain, saved = (logit_gradient(c, params, images) for c in (Compute(), Compute(remat=remat)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), plain, saved)


@pytest.mark.parametrize("config", [SMALL, WAVELET, *VQGAN_PRESETS.values()])
def test_sharding_table_names_each_parameter_once(config):
    used = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(abstract_params(config)):
        name = "/".join(key.key for key in path)
        rows = [(pattern, axes) for pattern, axes in AXES if re.fullmatch(pattern, name)]
        assert len(rows) == 1 and len(rows[0][1]) == leaf.ndim, name
        used.add(rows[0][0])
    if config is SMALL:
        assert used == {pattern for pattern, _ in AXES}


def test_sharded_equals_unsharded(rng):
    config = dataclasses.replace(SMALL, norm_groups=8)
    params, images = random_params(config), rng.random((2, 4, 6, 3), dtype=np.float32)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    placed = jax.device_put(params, param_shardings(params, AXES, mesh))
    run = apply(config, "code_logits")
    expected = run(params, images)
    np.testing.assert_allclose(run(placed, images), expected, atol=1e-5 * np.abs(expected).max())


def test_configs_that_cannot_be_built():
    for changes, message in (
        ({"channels": 6}, r"has 6 channels; .*norm_groups \(4\)"),
        ({"channels": 2, "channel_multipliers": (2, 2)}, "has 2 channels"),
        ({"channel_multipliers": ()}, r"channel_multipliers are \(\)"),
        ({"attention_levels": (2,)}, "numbers below 2"),
        ({"codebook_size": 0}, "codebook_size is 0"),
    ):
        with pytest.raises(InputError, match=message):
            dataclasses.replace(SMALL, **changes)
