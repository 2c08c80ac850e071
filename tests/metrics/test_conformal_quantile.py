"""The quantile of a prediction set: by hand, and the coverage that it promises."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.metrics.conformal_quantile import conformal_quantile


@pytest.mark.parametrize(
    ("num", "coverage", "rank"),
    [(9, 0.9, 9), (19, 0.9, 18), (100, 0.9, 91), (1003, 0.9, 904), (10, 0.5, 6)],
)
def test_the_quantile_is_the_score_of_the_rank(num, coverage, rank):
    # ⌈10 · .9⌉ = 9, ⌈20 · .9⌉ = 18, ⌈101 · .9⌉ = 91, ⌈1004 · .9⌉ = 904, ⌈11 · .5⌉ = 6
    scores = np.random.default_rng(0).permutation(np.arange(1.0, num + 1))
    assert conformal_quantile(scores, coverage=coverage) == rank


def test_new_scores_stay_below_it_as_often_as_promised():
    rng = np.random.default_rng(0)
    held = [np.mean(rng.random(500) <= conformal_quantile(rng.random(50), coverage=0.9)) for _ in range(2000)]
    # ⌈51 · .9⌉ / 51 = 46 / 51 on the average; standard error 0.001
    assert np.mean(held) == pytest.approx(46 / 51, abs=0.004)


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"at least 9 images for 0\.9, got 8"):
        conformal_quantile(np.zeros(8), coverage=0.9)
    with pytest.raises(ValueError, match=r"coverage must lie between 0 and 1, got 1\.0"):
        conformal_quantile(np.zeros(8), coverage=1.0)
