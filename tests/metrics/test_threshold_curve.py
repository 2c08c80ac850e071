"""Figures of a score: against scikit-learn, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from shared_nets.metrics.threshold_curve import ThresholdCurve


def official_partial_auc(is_positive, score, min_tpr=0.8):
    """What the ISIC 2024 challenge computes, by scikit-learn."""
    swapped, limit = 1 - np.asarray(is_positive), 1 - min_tpr
    scaled = roc_auc_score(swapped, -np.asarray(score), max_fpr=limit)
    lowest = 0.5 * limit**2
    return lowest + (limit - lowest) / (1.0 - 0.5) * (scaled - 0.5)


def draws(num):
    """Small sets with ties, rare and frequent positives."""
    rng = np.random.default_rng(0)
    for _ in range(num):
        size = int(rng.integers(5, 120))
        is_positive = rng.random(size) < rng.uniform(0.05, 0.9)
        is_positive[:2] = True, False
        score = rng.normal(size=size) + rng.uniform(0, 2) * is_positive
        yield is_positive, np.round(score, int(rng.integers(0, 4)))


def test_the_partial_auc_is_that_of_the_challenge_on_a_thousand_draws():
    for is_positive, score in draws(1000):
        ours = ThresholdCurve(is_positive, score).partial_auc()
        assert ours == pytest.approx(official_partial_auc(is_positive, score), abs=1e-12)


def test_the_partial_auc_of_perfect_tied_and_reversed_scores():
    is_positive = np.arange(50) < 10
    assert ThresholdCurve(is_positive, is_positive * 1.0).partial_auc() == pytest.approx(0.2)
    assert ThresholdCurve(is_positive, np.ones(50)).partial_auc() == pytest.approx(0.02)
    assert ThresholdCurve(is_positive, -1.0 * is_positive).partial_auc() == pytest.approx(0.0)


@pytest.mark.parametrize("is_positive", [[True, True], [False, False]])
def test_one_class_gives_nan_and_never_a_number(is_positive):
    curve = ThresholdCurve(is_positive, [0.1, 0.9])
    figures = [curve.partial_auc(), curve.auc(), curve.average_precision(), curve.sensitivity_at(0.9)]
    assert all(math.isnan(figure) for figure in [*figures, curve.specificity_at(0.9)])


def test_auc_and_average_precision_are_those_of_scikit_learn():
    for is_positive, score in draws(100):
        curve = ThresholdCurve(is_positive, score)
        assert curve.auc() == pytest.approx(roc_auc_score(is_positive, score), abs=1e-12)
        assert curve.average_precision() == pytest.approx(average_precision_score(is_positive, score))


def test_a_weight_counts_like_as_many_images():
    rng = np.random.default_rng(3)
    for is_positive, score in draws(50):
        times = rng.integers(0, 4, score.size)
        times[:2] = 1
        weighted, repeated = ThresholdCurve(is_positive, score), np.repeat(np.arange(score.size), times)
        again = ThresholdCurve(is_positive[repeated], score[repeated])
        for figure in ("auc", "partial_auc", "average_precision"):
            assert getattr(weighted, figure)(times) == pytest.approx(getattr(again, figure)(), abs=1e-12)


def test_operating_points_are_worked_out_by_hand():
    # falling scores: + − + − − + − − − −   → (1 − specificity, sensitivity) after each
    is_positive = np.array([1, 0, 1, 0, 0, 1, 0, 0, 0, 0], dtype=bool)
    curve = ThresholdCurve(is_positive, -np.arange(10.0))
    assert curve.sensitivity_at(0.99) == pytest.approx(1 / 3)  # no false positive
    assert curve.sensitivity_at(6 / 7) == pytest.approx(2 / 3)  # one of seven, just allowed
    assert curve.specificity_at(0.5) == pytest.approx(6 / 7)
    assert curve.specificity_at(1.0) == pytest.approx(4 / 7)


def test_scores_that_tie_are_called_together():
    curve = ThresholdCurve([True, False], [0.5, 0.5])
    assert curve.sensitivity_at(0.9) == 0.0
    assert curve.auc() == 0.5


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"score must have the shape of is_positive \(2,\), got \(3,\)"):
        ThresholdCurve([True, False], [1, 2, 3])
    with pytest.raises(ValueError, match="score must be finite"):
        ThresholdCurve([True, False], [1, np.nan])
    with pytest.raises(ValueError, match=r"min_tpr must be at least 0 and below 1, got 1\.0"):
        ThresholdCurve([True, False], [1, 2]).partial_auc(min_tpr=1.0)
