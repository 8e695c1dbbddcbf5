"""Frechet distances: of Gaussians whose distance is known, and by SciPy's matrix root."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from clip_jax.errors import InputError
from experiments.evaluation.metrics.frechet import (
    FewImagesWarning,
    Gaussian,
    fit,
    frechet_distance,
)


def gaussian(mean, covariance):
    return Gaussian(np.array(mean, float), np.array(covariance, float), 1000)


def test_of_known_gaussians():
    # Diagonal covariances: the sum of (sigma - tau)^2; here (1 - 3)^2 + (2 - 2)^2, and 3^2 + 4^2.
    one, other = gaussian([0, 0], np.diag([1, 4])), gaussian([3, 4], np.diag([9, 4]))
    assert frechet_distance(one, other) == pytest.approx(25 + 4)
    assert frechet_distance(other, one) == pytest.approx(29)
    # A singular one: a point, which is far by the mean and by all of the other's variance.
    assert frechet_distance(gaussian([0, 0], np.zeros((2, 2))), one) == pytest.approx(5)


def test_is_the_definition_with_a_matrix_root(rng):
    one, other = (rng.normal(size=(200, 6)) @ rng.normal(size=(6, 6)) + rng.normal() for _ in "ab")
    a, b = fit(one), fit(other)
    root = sqrtm(np.cov(one, rowvar=False) @ np.cov(other, rowvar=False))
    expected = (
        ((one.mean(0) - other.mean(0)) ** 2).sum()
        + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root).real
    )  # fmt: skip
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_same_images_are_at_no_distance(rng):
    features = fit(rng.normal(size=(50, 8)).astype(np.float32))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    with pytest.warns(FewImagesWarning, match="5 images have 8 features"):
        few = fit(rng.normal(size=(5, 8)))
    assert few.too_few and not features.too_few
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)


def test_few_images_seem_further_away(rng):
    # The same distribution: the distance shrinks to 0 with the number of images.
    many = [frechet_distance(*(fit(rng.normal(size=(n, 8))) for _ in "ab")) for n in (20, 80, 2000)]
    assert many[0] > 2 * many[1] > 4 * many[2]


def test_mistakes_are_one_line(rng):
    with pytest.raises(InputError, match=r"features are \[1, 4\]; .* at least 2"):
        fit(np.zeros((1, 4)))
    with pytest.raises(InputError, match="2 and 3 wide"):
        frechet_distance(fit(rng.normal(size=(9, 2))), fit(rng.normal(size=(9, 3))))
