"""Probabilities, sets and distances by hand, and by scipy and scikit-learn where these have them."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from scipy.special import expit, softmax

from shared_nets.transforms.lesion_calibration import (
    calibrated_probabilities,
    conformal_set,
    mahalanobis_score,
)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_probabilities_are_the_softmax_of_logits_over_temperature(temperature):
    logits = np.random.default_rng(0).normal(size=(5, 7)) * 4
    found = calibrated_probabilities(logits, temperature)
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), rtol=1e-12)


def test_one_logit_is_that_of_the_second_of_two_classes():
    found = calibrated_probabilities([1.2], 2.0)
    np.testing.assert_allclose(found, [1 - expit(0.6), expit(0.6)], rtol=1e-12)


def test_large_logits_do_not_overflow():
    np.testing.assert_allclose(calibrated_probabilities([1000.0, 0.0, -1000.0], 1.0), [1.0, 0.0, 0.0])


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.inf, np.nan])
def test_a_temperature_that_is_none_is_an_error(temperature):
    with pytest.raises(ValueError, match="temperature must be above 0"):
        calibrated_probabilities([0.0, 1.0], temperature)


def test_logits_that_are_no_numbers_are_an_error():
    with pytest.raises(ValueError, match="logits must be finite"):
        calibrated_probabilities([0.0, np.nan], 1.0)


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [
        pytest.param(0.5, (2,), id="one minus 0.6875 only"),
        pytest.param(0.75, (2, 0), id="1 - 0.25 is just in"),
        pytest.param(0.7499, (2,), id="1 - 0.25 is just out"),
        pytest.param(0.9, (2, 0), id="one minus 0.0625 is out"),
        pytest.param(1.0, (2, 0, 1), id="all"),
        pytest.param(0.1, (2,), id="none, so the most probable"),
    ],
)
def test_a_class_belongs_to_the_set_where_one_minus_its_probability_is_at_most_the_quantile(
    quantile, expected
):
    assert conformal_set([0.25, 0.0625, 0.6875], [quantile] * 3) == expected


def test_equal_classes_come_in_their_order():
    assert conformal_set([0.25, 0.25, 0.25, 0.25], [0.8] * 4) == (0, 1, 2, 3)


def test_each_class_has_a_quantile_of_its_own():
    # scores 0.75, 0.9375, 0.3125: the first is above its quantile, the others are not
    assert conformal_set([0.25, 0.0625, 0.6875], [0.7, 0.95, 0.4]) == (2, 1)


def test_a_set_is_of_one_image():
    with pytest.raises(ValueError, match="must be a vector"):
        conformal_set([[0.5, 0.5]], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"quantiles must be 2, one a class, got the shape \(\)"):
        conformal_set([0.5, 0.5], 0.5)


def test_the_distance_is_the_smallest_squared_mahalanobis_distance():
    draw = np.random.default_rng(1)
    spread = draw.normal(size=(4, 4))
    precision = np.linalg.inv(spread @ spread.T + np.eye(4))
    means, point = draw.normal(size=(3, 4)), draw.normal(size=4)
    expected = min(mahalanobis(point, mean, precision) ** 2 for mean in means)
    assert mahalanobis_score(point, means, precision) == pytest.approx(expected, rel=1e-12)


def test_a_mean_is_at_no_distance_from_itself():
    means = np.array([[1.0, 2.0], [3.0, 4.0]], dtype=np.float32)
    assert mahalanobis_score(means[1], means, np.eye(2, dtype=np.float32)) == 0.0


def test_an_embedding_of_another_network_is_an_error():
    with pytest.raises(ValueError, match="must have 2 numbers as the means have"):
        mahalanobis_score(np.zeros(3), np.zeros((2, 2)), np.eye(2))
    with pytest.raises(ValueError, match="must be finite"):
        mahalanobis_score([np.nan, 0.0], np.zeros((2, 2)), np.eye(2))
