"""The temperature: found again where it is known, and never worse than none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch.nn import functional as F

from shared_nets.metrics.temperature_scaling import fit_temperature


def honest(num, seed=0):
    """Logits whose softmax is the chance of each of 5 classes, and labels drawn by it."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num, 5)) * 2
    chance = softmax(logits, axis=1)
    return logits, (chance.cumsum(axis=1) < rng.random((num, 1))).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_logits_that_are_too_large_by_a_factor_get_that_factor(temperature):
    logits, labels = honest(20_000)
    assert fit_temperature(temperature * logits, labels).temperature == pytest.approx(temperature, rel=0.03)


def test_the_likelihoods_are_those_of_pytorch_and_no_other_temperature_is_better():
    logits, labels = honest(300)
    fit = fit_temperature(3 * logits, labels)

    def nll(temperature):
        return F.cross_entropy(torch.as_tensor(3 * logits / temperature), torch.as_tensor(labels)).item()

    assert fit.nll_before == pytest.approx(nll(1.0), rel=1e-12)
    assert fit.nll_after == pytest.approx(nll(fit.temperature), rel=1e-12)
    assert fit.nll_after < min(nll(fit.temperature * 1.01), nll(fit.temperature / 1.01), fit.nll_before)


def test_images_that_are_all_right_have_no_temperature():
    with pytest.raises(ValueError, match=r"must have a best temperature between 0\.05 and 20\.0"):
        fit_temperature(np.eye(4), np.arange(4))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"labels must have shape \(3,\)"):
        fit_temperature(np.zeros((3, 2)), [0, 1])
