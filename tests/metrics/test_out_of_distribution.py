"""Class means and the common covariance, against scikit-learn, and what they tell apart."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf

from shared_nets.metrics.out_of_distribution import fit_class_gaussians


@pytest.fixture
def training():
    """Three classes of 8-dimensional embeddings, the third one rare, with one stretched direction."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [300, 200, 5])
    spread = np.diag([5.0, 1, 1, 1, 1, 1, 1, 1])
    return rng.normal(size=(505, 8)) @ spread + 10 * np.eye(8)[labels], labels


def test_means_and_covariance_are_those_of_the_classes(training):
    points, labels = training
    means, precision = fit_class_gaussians(points, labels, num_classes=3)
    expected = np.stack([points[labels == k].mean(axis=0) for k in range(3)])
    np.testing.assert_allclose(means, expected, rtol=1e-6)
    covariance, _ = ledoit_wolf(points - expected[labels], assume_centered=True)
    np.testing.assert_allclose(precision, np.linalg.inv(covariance), rtol=1e-4, atol=1e-6)
    assert (precision == precision.T).all()
    assert means.dtype == precision.dtype == np.float32


def test_a_step_against_the_spread_counts_more_than_one_along_it(training):
    _, precision = fit_class_gaussians(*training, num_classes=3)
    assert precision[1, 1] > 15 * precision[0, 0]  # variances 1 and 25


def test_fewer_images_than_directions_still_have_an_inverse():
    rng = np.random.default_rng(0)
    points, labels = rng.normal(size=(12, 40)), np.arange(12) % 2
    points[:, 7] = 0.0  # a direction that no image uses
    _, precision = fit_class_gaussians(points, labels, num_classes=2)
    assert np.isfinite(precision).all()
    assert np.linalg.eigvalsh(precision.astype(float)).min() > 0


def test_what_cannot_be_fitted_is_refused(training):
    points, labels = training
    with pytest.raises(ValueError, match=r"labels must hold every class of 4, got counts \[300, 200, 5, 0\]"):
        fit_class_gaussians(points, labels, num_classes=4)
    with pytest.raises(ValueError, match="embeddings must be finite"):
        fit_class_gaussians(np.full((2, 3), np.nan), [0, 1], num_classes=2)
    with pytest.raises(ValueError, match=r"labels must have shape \(505,\)"):
        fit_class_gaussians(points, labels[:4], num_classes=3)
