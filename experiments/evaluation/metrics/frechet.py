"""Computes the Frechet distance of two sets of images, by features of any image tower.

Source: Heusel et al. 2017, "GANs Trained by a Two Time-Scale Update Rule", equation 6.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from clip_jax.errors import InputError


class FewImagesWarning(UserWarning):
    """A covariance of fewer images than features has no full rank."""


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Hold the moments of features: mean float64[D], covariance float64[D, D], their count."""

    mean: np.ndarray
    covariance: np.ndarray
    count: int

    @property
    def too_few(self) -> bool:
        """Return whether so few features bias distances upwards, so that more would shrink them."""
        return self.count <= len(self.mean)


def fit(features: np.ndarray) -> Gaussian:
    """float[N, D], N at least 2. Up to D of them give a FewImagesWarning."""
    if features.ndim != 2 or len(features) < 2:
        raise InputError(
            f"features are {list(features.shape)}; a Frechet distance needs at least 2 images"
        )
    rows = features.astype(np.float64)
    found = Gaussian(rows.mean(axis=0), np.atleast_2d(np.cov(rows, rowvar=False)), len(rows))
    if found.too_few:
        warnings.warn(
            f"{found.count} images have {len(found.mean)} features: the Frechet distance is "
            "biased upwards, and to be compared only between equal numbers of images",
            FewImagesWarning,
            stacklevel=2,
        )
    return found


def frechet_distance(one: Gaussian, other: Gaussian) -> float:
    """Squared, as it is usually given: |m - n|^2 + tr(C + D - 2 (C D)^(1/2)), at least 0.

    The trace of (C D)^(1/2) is the sum of the singular values of C^(1/2) D^(1/2), which stays real
    and exact where covariances are singular, and a matrix root of C D does not.
    """
    if len(one.mean) != len(other.mean):
        raise InputError(
            f"features are {len(one.mean)} and {len(other.mean)} wide; expected one width"
        )
    between = float(((one.mean - other.mean) ** 2).sum())
    shared = np.linalg.svd(_root(one.covariance) @ _root(other.covariance), compute_uv=False).sum()
    spread = float(np.trace(one.covariance) + np.trace(other.covariance) - 2 * shared)
    return max(between + spread, 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
