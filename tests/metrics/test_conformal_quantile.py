"""The quantiles of prediction sets: by hand, and the coverage that each class is promised."""

from __future__ import annotations

import numpy as np
import pytest

from shared_nets.metrics.conformal_quantile import conformal_quantiles


@pytest.mark.parametrize(
    ("num", "coverage", "rank"),
    [(9, 0.9, 9), (19, 0.9, 18), (100, 0.9, 91), (1003, 0.9, 904), (10, 0.5, 6)],
)
def test_the_quantile_is_the_score_of_the_rank(num, coverage, rank):
    # ⌈10 · .9⌉ = 9, ⌈20 · .9⌉ = 18, ⌈101 · .9⌉ = 91, ⌈1004 · .9⌉ = 904, ⌈11 · .5⌉ = 6
    scores = np.random.default_rng(0).permutation(np.arange(1.0, num + 1)) / 2000.0
    assert conformal_quantiles(scores, np.zeros(num), num_classes=1, coverage=coverage) == (rank / 2000.0,)


def test_each_class_is_judged_by_its_own_images():
    scores = [0.1, 0.8, 0.2, 0.7, 0.3, 0.9]
    # of three images each, the ⌈4 · .7⌉ = 3rd: 0.3 of class 0, 0.9 of class 1
    assert conformal_quantiles(scores, [0, 1, 0, 1, 0, 1], num_classes=2, coverage=0.7) == (0.3, 0.9)


def test_a_class_with_too_few_images_is_in_every_set():
    scores, labels = np.full(17, 0.25), np.repeat([0, 1], [9, 8])
    # ⌈10 · .9⌉ = 9 of 9 images; ⌈9 · .9⌉ = 9 of 8 images; no image of class 2
    assert conformal_quantiles(scores, labels, num_classes=3, coverage=0.9) == (0.25, 1.0, 1.0)


def test_every_class_is_covered_as_promised_where_a_rare_one_is_harder():
    """Class 1 has 30 of 330 images and scores that lie far higher; both are covered on the average."""
    rng, held = np.random.default_rng(0), []
    for _ in range(2000):
        easy, hard = rng.random(300) * 0.2, 0.5 + rng.random(30) * 0.5
        found = conformal_quantiles(np.r_[easy, hard], np.repeat([0, 1], [300, 30]), num_classes=2)
        held.append(
            [np.mean(rng.random(200) * 0.2 <= found[0]), np.mean(0.5 + rng.random(200) * 0.5 <= found[1])]
        )
    # ⌈301 · .9⌉ / 301 = 271 / 301 and ⌈31 · .9⌉ / 31 = 28 / 31; standard errors below 0.002
    np.testing.assert_allclose(np.mean(held, axis=0), [271 / 301, 28 / 31], atol=0.006)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"coverage must lie between 0 and 1, got 1\.0"):
        conformal_quantiles(np.zeros(8), np.zeros(8), num_classes=1, coverage=1.0)
    with pytest.raises(ValueError, match=r"labels must have the shape of scores \(8,\), got \(7,\)"):
        conformal_quantiles(np.zeros(8), np.zeros(7), num_classes=1)
    with pytest.raises(ValueError, match="labels must lie between 0 and 1, got 0, 2"):
        conformal_quantiles([0.1, 0.2], [0, 2], num_classes=2)
