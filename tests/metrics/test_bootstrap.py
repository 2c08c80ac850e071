import numpy as np
import pytest
from scipy.stats import bootstrap

from shared_nets.metrics.bootstrap import bootstrap_interval, paired_bootstrap_interval
from shared_nets.metrics.regression_figures import mean_absolute_error, r_squared


@pytest.fixture
def people():
    rng = np.random.default_rng(1)
    observed = rng.normal(70, 15, 150)
    return observed, observed + rng.normal(0, 10, 150), observed + rng.normal(0, 14, 150)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_interval_agrees_with_scipy(people, method):
    observed, predicted, _ = people
    ours = bootstrap_interval(mean_absolute_error, observed, predicted, num_draws=3000, method=method)
    theirs = bootstrap(
        (observed, predicted),
        mean_absolute_error,
        paired=True,
        vectorized=False,
        n_resamples=3000,
        method={"bca": "BCa", "percentile": "percentile"}[method],
        rng=np.random.default_rng(2),
    ).confidence_interval
    # the ends are quantiles of 3000 draws of a figure whose standard error is 0.5
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.08)


def test_a_clearly_better_model_has_a_difference_that_excludes_zero(people):
    observed, good, poor = people
    difference = paired_bootstrap_interval(mean_absolute_error, observed, good, poor, num_draws=500)
    assert difference.value == pytest.approx(
        mean_absolute_error(observed, good) - mean_absolute_error(observed, poor)
    )
    assert difference.high < 0
    assert difference.excludes_zero


def test_a_model_does_not_differ_from_itself(people):
    observed, good, _ = people
    same = paired_bootstrap_interval(r_squared, observed, good, good, num_draws=50)
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)
    assert not same.excludes_zero


def test_repeats_are_averaged_and_do_not_count_as_people(people):
    observed, good, _ = people
    once = bootstrap_interval(mean_absolute_error, observed, good, num_draws=300)
    repeated = bootstrap_interval(mean_absolute_error, observed, np.stack([good] * 5), num_draws=300)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high), rel=1e-12)


def test_wrong_shape_is_refused():
    with pytest.raises(
        ValueError, match=r"predicted must have shape \(N,\) or \(R, N\) for N = 3, got \(1, 2\)"
    ):
        bootstrap_interval(r_squared, [1, 2, 3], [1, 2])
