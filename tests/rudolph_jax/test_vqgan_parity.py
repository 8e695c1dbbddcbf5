"""Converted image tokenizers compute what the PyTorch originals recorded (tests/goldens)."""

from functools import partial

import jax
import numpy as np
import pytest

import rudolph_jax
from rudolph_jax import Vqgan


@pytest.fixture(scope="module", params=["vqgan", "vqgan_dwt"])
def recorded(request, goldens, golden_folder):
    vqgan = rudolph_jax.load_vqgan(golden_folder(request.param, "vqgan"))
    return vqgan, dict(np.load(goldens / request.param / "outputs.npz"))


def channels_last(array):
    return array.transpose(0, 2, 3, 1)


@pytest.mark.parametrize("size", [64, pytest.param(32, marks=pytest.mark.slow)])
def test_latents_logits_and_ids(recorded, size):
    vqgan, outputs = recorded
    images = channels_last(outputs[f"image{size}"])
    apply = partial(Vqgan(vqgan.config).apply, {"params": vqgan.params})
    both = jax.jit(lambda x: (apply(x, method="latents"), apply(x, method="code_logits")))
    for name, found in zip(("latent", "logits"), both(images), strict=True):
        expected = channels_last(outputs[f"{name}{size}"])
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    np.testing.assert_array_equal(vqgan.encode(images), outputs[f"ids{size}"])


@pytest.mark.parametrize(
    ("ids", "decoded"),
    [("ids64", "decoded64"), ("ids32", "decoded32"), ("random_ids", "random_decoded")],
)
def test_decoded_pictures(recorded, ids, decoded):
    vqgan, outputs = recorded
    expected = channels_last(outputs[decoded])
    found = np.asarray(vqgan.decode(outputs[ids]))
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4
