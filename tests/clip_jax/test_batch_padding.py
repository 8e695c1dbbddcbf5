"""Padded batches: few compiled sizes, and the same values as unpadded ones."""

import jax
import numpy as np
import pytest

from clip_jax import Predictor, PretrainedClip
from clip_jax.batch_padding import bucket_size, pad_batch
from clip_jax.model import abstract_params


def test_bucket_sizes():
    sizes = [bucket_size(count) for count in range(1, 1025)]
    assert [size for i, size in enumerate(sizes) if size not in sizes[:i]] == [
        1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024,
    ]  # fmt: skip
    assert all(2 * size <= 3 * count and size >= count for count, size in enumerate(sizes, 1))
    assert bucket_size(0) == 0


def test_padding_repeats_the_last_row():
    rows = np.arange(6).reshape(3, 2)
    np.testing.assert_array_equal(pad_batch(rows, 5), rows[[0, 1, 2, 2, 2]])
    assert pad_batch(rows, 2) is rows


@pytest.fixture
def clip(small_config, rng):
    params = jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), abstract_params(small_config)
    )
    return PretrainedClip(small_config, params)


def test_new_batch_sizes_compile_nothing(clip, rng, compilations):
    pixels = rng.normal(size=(12, 24, 24, 3)).astype(np.float32)
    ids = rng.integers(0, 60, (12, 12)).astype(np.int32)
    ids[:, -1] = clip.config.eos_id
    images = [rng.integers(0, 256, (24, 24, 3), np.uint8) for _ in range(23)]
    predictor = Predictor(clip, batch_size=6, quiet=True)

    def use(count):
        found = clip.encode_image(pixels[:count]), clip.encode_text(ids[:count])
        per_image, per_text = map(np.asarray, clip.logits(ids[:count], pixels[:6]))
        np.testing.assert_array_equal(per_image.T, per_text)
        assert per_image.shape == (6, count)
        latents = predictor.get_image_latents(images[:count])
        return *map(np.asarray, found), latents

    for count in (6, 8, 12):
        whole = use(count)
    assert compilations
    compilations.clear()
    for count in (5, 7, 9, 10, 11, 12):
        for part, all_rows in zip(use(count), whole, strict=True):
            np.testing.assert_allclose(part, all_rows[:count], rtol=1e-4, atol=1e-4)
    assert predictor.get_image_latents(images).shape == (23, clip.config.embed_dim)
    assert not compilations


def test_logits_are_unpadded_in_one_transfer(clip, rng, monkeypatch):
    """Features stay padded on the device: one transfer of 5 x 7 logits, none of 6 x 8."""
    pixels = rng.normal(size=(6, 24, 24, 3)).astype(np.float32)
    ids = np.full((8, 3), clip.config.eos_id, np.int32)
    transfers = []
    to_host = np.asarray

    def counted(array, *args, **kwargs):
        if isinstance(array, jax.Array):
            transfers.append(array.shape)
        return to_host(array, *args, **kwargs)

    monkeypatch.setattr(np, "asarray", counted)
    clip.logits(ids, pixels)
    assert transfers == []
    clip.logits(ids[:7], pixels[:5])
    assert transfers == [(6, 8)]


@pytest.mark.parametrize("texts", [2, 5])
def test_gradients_pass(clip, rng, texts):
    pixels = rng.normal(size=(5, 24, 24, 3)).astype(np.float32)
    ids = np.full((texts, 3), clip.config.eos_id, np.int32)
    slope = jax.grad(lambda pixels: clip.logits(ids, pixels)[0].sum())(pixels)
    assert slope.shape == pixels.shape and np.abs(slope).sum(axis=(1, 2, 3)).all()
