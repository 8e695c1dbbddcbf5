"""Held-out figures of RUDOLPH and of its image tokenizer, and what counts alone reach."""

import numpy as np
import pytest

from experiments.evaluation.methods.reconstruction import reconstruct
from experiments.evaluation.methods.sequence_losses import (
    bigram_loss,
    sequence_losses,
    unigram_loss,
)

CAPTIONS = ["цифра семь", "семь", "число пять", "цифра пять", "пять"]


def test_unigrams_are_counts_plus_one():
    known, codes = np.array([[0, 0, 1]]), np.array([[0, 2]])
    # Three of four codes: 3, 2, 1 and 1 of 7 after adding one.
    assert unigram_loss(known, codes, 4) == pytest.approx(-(np.log(3 / 7) + np.log(1 / 7)) / 2)


def test_bigrams_know_the_code_before_and_the_first_place(rng):
    chains = (np.arange(6)[None] + rng.integers(0, 5, (400, 1))) % 5  # each code gives the next
    # Only the first of six is uncertain, uniform over five.
    assert bigram_loss(chains, chains, 5) == pytest.approx(np.log(5) / 6, abs=0.02)
    assert unigram_loss(chains, chains, 5) == pytest.approx(np.log(5), abs=0.02)
    fixed = np.zeros((50, 6), int)
    assert bigram_loss(fixed, fixed, 5) < 0.01


def test_losses_do_not_depend_on_the_batches(small_rudolph, rng):
    pictures = list(rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8))
    whole = sequence_losses(small_rudolph, pictures, CAPTIONS)
    parts = sequence_losses(small_rudolph, pictures, CAPTIONS, batch_size=2)
    assert set(whole) == {"image_loss", "right_text_loss"}
    assert parts == pytest.approx(whole, rel=1e-5)
    # Untrained: about uniform over 24 codes, and over 112 text ids.
    assert whole["image_loss"] == pytest.approx(np.log(24), abs=0.2)
    assert whole["right_text_loss"] == pytest.approx(np.log(112), abs=0.3)


def test_reconstruction_is_of_every_picture_in_order(small_vqgan, rng):
    pictures = list(rng.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8))
    result = reconstruct(small_vqgan, pictures, 8, batch_size=2)
    expected = np.stack(pictures).astype(np.float32) / 255
    np.testing.assert_array_equal(result.images, expected)
    np.testing.assert_array_equal(result.codes, small_vqgan.encode(expected))
    np.testing.assert_allclose(result.decoded, small_vqgan.decode(result.codes), atol=1e-5)
    error = np.abs(result.decoded - expected).mean()
    assert result.absolute_error == pytest.approx(float(error), rel=1e-5)
    assert result.codebook_usage(24) == len(set(result.codes.ravel())) / 24
