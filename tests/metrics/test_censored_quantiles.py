import numpy as np
import pytest

from shared_nets.metrics.censored_quantiles import quantiles_below_bounds

LEVELS = [0.0, 0.05, 0.5, 0.9, 1.0]


def test_without_bounds_they_are_numpys_quantiles():
    values = np.random.default_rng(0).normal(size=37)
    quantiles = quantiles_below_bounds(values, np.zeros(37, bool), LEVELS)
    assert quantiles == pytest.approx(np.quantile(values, LEVELS))


def test_the_weight_of_a_bound_goes_to_what_lies_below():
    # 4 is a bound: 1, 2, 3 weigh 4/3 each, so the middle is 2
    assert quantiles_below_bounds([1, 2, 3, 4], [False, False, False, True], [0.0, 0.5, 1.0]).tolist() == [
        1,
        2,
        3,
    ]


def test_a_bound_below_all_numbers_counts_as_a_number():
    assert quantiles_below_bounds([1, 2, 3], [True, False, False], [0.0, 1.0]).tolist() == [1, 3]


def test_true_distribution_is_found_again():
    rng = np.random.default_rng(3)
    true = rng.normal(size=4000)
    bound = rng.normal(size=4000) + 0.5  # below it, only the bound is known
    hidden = true < bound
    quantiles = quantiles_below_bounds(np.maximum(true, bound), hidden, [0.5, 0.9])
    assert quantiles == pytest.approx([0.0, 1.2816], abs=0.08)  # standard error 0.03
    assert np.quantile(np.maximum(true, bound), 0.5) > 0.5


def test_shapes_must_match():
    with pytest.raises(ValueError, match="is_upper_bound must have the shape of values"):
        quantiles_below_bounds([1.0], [True, False], [0.5])
