"""Calibration error and Brier score, by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from shared_nets.metrics.calibration_error import brier_score, expected_calibration_error


def test_the_gap_of_each_bin_counts_by_its_size():
    # of two bins: stated .2 and .4, none happened: gap .3; stated .9 twice, one happened: gap .4
    error = expected_calibration_error([0.2, 0.4, 0.9, 0.9], [0, 0, 1, 0], num_bins=2)
    assert error == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)


def test_a_stated_one_and_a_stated_zero_are_counted():
    assert expected_calibration_error([1.0, 1.0], [1, 0]) == pytest.approx(0.5)
    assert expected_calibration_error([0.0, 0.0], [1, 0]) == pytest.approx(0.5)


def test_a_bin_is_closed_on_its_right():
    # .5 lies with .4 in the first of two bins, mean stated .45
    assert expected_calibration_error([0.4, 0.5], [1, 0], num_bins=2) == pytest.approx(0.05)


def test_honest_probabilities_have_hardly_any_error():
    rng = np.random.default_rng(0)
    stated = rng.random(100_000)
    assert expected_calibration_error(stated, rng.random(100_000) < stated) < 0.01


def test_brier_scores_are_worked_out_by_hand():
    # (.3² + .2² + .1²) and (.2² + .2² + .4²)
    score = brier_score([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]], [0, 2])
    assert score == pytest.approx((0.14 + 0.24) / 2)


def test_the_brier_score_of_a_question_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    stated, was_so = rng.random(50), rng.integers(0, 2, 50)
    assert brier_score(stated, was_so) == pytest.approx(brier_score_loss(was_so, stated))


def test_a_weight_counts_like_as_many_images():
    stated, was_so, times = np.array([0.3, 0.6, 0.9]), np.array([0, 1, 0]), np.array([2, 0, 3])
    rows = np.repeat(np.arange(3), times)
    for figure in (expected_calibration_error, brier_score):
        assert figure(stated, was_so, times) == pytest.approx(figure(stated[rows], was_so[rows]))
        assert math.isnan(figure(stated, was_so, [0, 0, 0]))


def test_what_is_no_probability_is_refused():
    with pytest.raises(ValueError, match="probability must lie between 0 and 1"):
        expected_calibration_error([1.2], [1])
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\), got \(3,\)"):
        brier_score(np.ones((2, 3)) / 3, [0, 1, 2])
