"""Weights of eight bits: how they are rounded, and that drawing and scoring take them so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rudolph_jax
from clip_jax import InputError
from rudolph_jax import Compute, PretrainedRudolph, incremental
from rudolph_jax.generation import GenerationConfig, sample_batches
from rudolph_jax.int8 import CONTRACTED, QuantizedKernel, is_int8, quantize, quantize_layers
from rudolph_jax.sampling import SamplingParams


@pytest.fixture(scope="module")
def folder(api, tmp_path_factory):
    return api.save(tmp_path_factory.mktemp("short") / "model")


@pytest.fixture(scope="module")
def stored(folder):
    return rudolph_jax.load(folder)


@pytest.fixture(scope="module")
def rounded(folder):
    return rudolph_jax.load(folder, weights="int8")


def test_each_output_has_a_scale_and_no_weight_is_off_by_more_than_half_of_it(rng):
    kernel = rng.normal(size=(7, 3, 5)).astype(np.float32) * np.array([1, 100, 1e-4])[None, :, None]
    kernel[:, :, 4] = 0
    found = quantize(kernel, (0,))
    assert found.values.dtype == np.int8 and found.scale.shape == (1, 3, 5)
    assert np.abs(found.values).max(axis=0)[:, :4].tolist() == [[127] * 4] * 3
    assert (np.abs(found.astype(np.float32) - kernel) <= 0.5001 * found.scale).all()
    assert not found.astype(np.float32)[:, :, 4].any()


def test_what_a_product_sums_over_is_what_shares_a_scale(stored, rounded):
    kernels = {"qkv_kernel": "BTD,DcHK->BTcHK", "in_kernel": "BTD,DF->BTF"}
    out = {"attention": "BHTK,HKD->BTD", "mlp": "BTF,FD->BTD"}
    for (part, name), axes in CONTRACTED.items():
        equation = kernels.get(name) or out[part]
        asked, kernel = equation.split("->")[0].split(",")
        assert [kernel[axis] for axis in axes] == [
            letter for letter in kernel if letter not in equation.split("->")[1]
        ]
        assert set(kernel) - set(equation.split("->")[1]) <= set(asked)
        leaf = rounded.params["layers"]["0"][part][name]
        assert leaf.values.shape == stored.params["layers"]["0"][part][name].shape


def test_all_else_stays_and_kernels_take_a_quarter(stored, rounded):
    kernels = [leaf for leaf in jax.tree.leaves(rounded.params, is_leaf=is_int8) if is_int8(leaf)]
    assert len(kernels) == len(CONTRACTED) * stored.config.layers
    D = stored.config.width
    sizes = sum(leaf.values.nbytes for leaf in kernels)
    assert sizes == stored.config.layers * (4 * D * D + 2 * D * stored.config.mlp_width)
    without = {k: v for k, v in rounded.params.items() if k != "layers"}
    for path, leaf in jax.tree_util.tree_leaves_with_path(without):
        other = stored.params
        for key in path:
            other = other[key.key]
        np.testing.assert_array_equal(leaf, other)


def test_logits_are_those_of_the_rounded_kernels_and_near_the_stored(stored, rounded, rng):
    ids = rng.integers(1, 9, size=(2, stored.layout.image.start + 3)).astype(np.int32)
    plain = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), rounded.params, is_leaf=is_int8)
    same = PretrainedRudolph(stored.config, plain).logits(ids)
    found, expected = rounded.logits(ids), stored.logits(ids)
    np.testing.assert_allclose(found, same, atol=5e-5)
    apart = np.abs(found - expected).max() / np.std(expected)
    assert 1e-4 < apart < 0.2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_draws_what_is_likeliest_by_its_own_logits(folder, dtype):
    rudolph = rudolph_jax.load(folder, compute=Compute(dtype=dtype), weights="int8")
    left = rudolph.config.left_text_length
    prompts = np.full((1, 1, left), 5, np.int32)
    generation = GenerationConfig(SamplingParams(temperature=0.0), quiet=True)
    (drawn,) = sample_batches(rudolph, generation, "image", prompts, start=left, count=1)
    whole = np.concatenate([prompts[0], drawn[0]], axis=1)
    logits = rudolph.logits(whole)[0, left - 1 : -1, rudolph.layout.code_logits]
    chosen = np.take_along_axis(np.asarray(logits), drawn[0, 0][:, None], axis=1)[:, 0]
    slack = 1e-5 if dtype == "float32" else 0.05
    assert (chosen >= np.asarray(logits).max(axis=1) - slack).all()


def test_casting_leaves_eight_bits_alone(stored):
    params = incremental.cast_params(quantize_layers(stored.params), Compute(dtype="bfloat16"))
    attention = params["layers"]["0"]["attention"]
    assert isinstance(attention["qkv_kernel"], QuantizedKernel)
    assert attention["qkv_kernel"].values.dtype == np.int8
    assert attention["qkv_bias"].dtype == jnp.bfloat16


def test_it_is_not_saved_and_other_names_are_refused(folder, rounded, tmp_path):
    with pytest.raises(InputError, match="are not saved; load the model with"):
        rounded.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(InputError, match="weights is 'int4'; expected one of stored, int8"):
        rudolph_jax.load(folder, weights="int4")
