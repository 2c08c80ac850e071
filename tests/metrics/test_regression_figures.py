import numpy as np
import pytest
from sklearn.metrics import r2_score

from shared_nets.metrics.regression_figures import (
    agreement,
    censored_at,
    interval_coverage,
    limits_of_agreement,
    p30,
    r_squared,
    stage_agreement,
)

OBSERVED = np.array([60.0, 80.0, 40.0, 100.0])
PREDICTED = np.array([66.0, 76.0, 56.0, 100.0])


def test_figures_are_worked_out_by_hand():
    figures = agreement(OBSERVED, PREDICTED)
    assert figures["mae"] == pytest.approx((6 + 4 + 16 + 0) / 4)
    assert figures["rmse"] == pytest.approx(np.sqrt((36 + 16 + 256) / 4))
    assert figures["bias"] == pytest.approx((6 - 4 + 16) / 4)
    assert figures["r2"] == pytest.approx(1 - 308 / 2000)
    assert r_squared(OBSERVED, PREDICTED) == pytest.approx(r2_score(OBSERVED, PREDICTED))


def test_limits_of_agreement_are_the_mean_and_1_96_standard_deviations():
    low, high = limits_of_agreement(np.zeros(3), np.array([1.0, 2.0, 3.0]))
    assert (low, high) == pytest.approx((2 - 1.96, 2 + 1.96), abs=1e-4)


def test_p30_counts_predictions_within_thirty_percent_of_the_observed():
    # 56 against 40 is 40 % off, the others at most 10 %
    assert p30(OBSERVED, PREDICTED) == 0.75


def test_coverage_counts_the_ends_as_inside():
    assert interval_coverage(
        np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.5, 0.0]), np.array([2.0, 3.0, 3.0])
    ) == (pytest.approx(2 / 3))


def test_nothing_above_the_bound_counts_for_anybody():
    observed, predicted = censored_at([90.0, 70.0, 50.0], [120.0, 95.0, 40.0], [True, False, False])
    assert observed.tolist() == [90.0, 70.0, 50.0]
    assert predicted.tolist() == [90.0, 90.0, 40.0]


def test_values_without_a_bound_stay_as_they_are():
    assert censored_at([100.0], [120.0], [False])[1].tolist() == [120.0]


def test_two_bounds_are_refused():
    with pytest.raises(ValueError, match="observed must hold one bound"):
        censored_at([60.0, 90.0], [1.0, 1.0], [True, True])


def test_stage_figures_know_near_from_far():
    observed, predicted = np.array([0, 1, 2, 5]), np.array([0, 2, 2, 3])
    figures = stage_agreement(observed, predicted)
    assert figures["accuracy"] == 0.5
    assert figures["accuracy_within_one"] == 0.75
    # quadratic kappa by its definition: 1 − Σ w·O / Σ w·E with w = (i − j)²
    seen = np.mean((observed - predicted) ** 2)
    by_chance = np.mean((observed[:, None] - predicted[None]) ** 2)
    assert figures["quadratic_kappa"] == pytest.approx(1 - seen / by_chance)
    # F1 of stage 0: 1, stage 1: 0, stage 2: 2/3, stage 3: 0, stage 5: 0
    assert figures["macro_f1"] == pytest.approx((1 + 2 / 3) / 5)


def test_one_stage_alone_has_no_kappa():
    assert np.isnan(stage_agreement(np.zeros(3, int), np.zeros(3, int))["quadratic_kappa"])
