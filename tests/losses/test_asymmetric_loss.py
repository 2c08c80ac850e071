"""Asymmetric loss, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from shared_nets.losses.asymmetric_loss import AsymmetricLoss


def logit(p):
    return torch.tensor([math.log(p / (1 - p))])


def test_a_positive_is_worked_out_by_hand():
    loss = AsymmetricLoss(gamma_positive=1.0)(logit(0.3), torch.ones(1))
    assert loss.item() == pytest.approx(0.7 * -math.log(0.3), rel=1e-5)


def test_a_negative_is_lowered_by_the_clip_before_it_is_focused():
    loss = AsymmetricLoss(gamma_negative=4.0, clip=0.05)(logit(0.3), torch.zeros(1))
    assert loss.item() == pytest.approx(0.25**4 * -math.log(0.75), rel=1e-5)


def test_a_negative_below_the_clip_costs_nothing_and_teaches_nothing():
    logits = logit(0.04).requires_grad_()
    loss = AsymmetricLoss(clip=0.05)(logits, torch.zeros(1))
    loss.backward()
    assert (loss.item(), logits.grad.item()) == (0.0, 0.0)


def test_the_clip_makes_a_negative_cheaper_never_dearer():
    """The sign of the clip that published copies have wrong."""
    for p in (0.1, 0.5, 0.9):
        clipped = AsymmetricLoss(gamma_negative=0.0, clip=0.1)(logit(p), torch.zeros(1))
        assert clipped < AsymmetricLoss(gamma_negative=0.0, clip=0.0)(logit(p), torch.zeros(1))


def test_without_focus_and_clip_it_is_the_binary_cross_entropy():
    logits, target = torch.randn(5, 3), torch.randint(0, 2, (5, 3))
    ours = AsymmetricLoss(gamma_negative=0.0, clip=0.0)(logits, target)
    assert torch.allclose(ours, F.binary_cross_entropy_with_logits(logits, target.float()))


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_large_logits_give_finite_gradients_in_half_precision(clip):
    logits = torch.tensor([[-60000.0], [60000.0], [0.0]], dtype=torch.float16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = AsymmetricLoss(clip=clip)(logits, torch.tensor([1, 0, 0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clip": 1.0}, "clip must be at least 0 and below 1, got 1.0"),
        ({"gamma_positive": -1.0}, "gamma_positive must be at least 0, got -1.0"),
        ({"gamma_negative": 0.5}, "gamma_negative must be 0 or at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AsymmetricLoss(**arguments)


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"target must have shape \(2, 3\), got \(3, 2\)"):
        AsymmetricLoss()(torch.zeros(2, 3), torch.zeros(3, 2))
