"""Focal losses, by hand and against PyTorch's cross entropies."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from shared_nets.losses.focal_loss import BinaryFocalLoss, MultiClassFocalLoss


def logit(p):
    return math.log(p / (1 - p))


def test_a_binary_loss_is_worked_out_by_hand():
    logits = torch.tensor([logit(0.9), logit(0.2)])
    # positive: .75 · .1² · −ln .9; negative: .25 · .2² · −ln .8
    expected = (0.75 * 0.01 * -math.log(0.9) + 0.25 * 0.04 * -math.log(0.8)) / 2
    assert BinaryFocalLoss()(logits, torch.tensor([1, 0])).item() == pytest.approx(expected, rel=1e-5)


def test_alpha_weighs_the_positive_class():
    loss, hard = BinaryFocalLoss(alpha=0.75), torch.zeros(1, 1)
    missed, false_alarm = loss(hard, torch.ones(1, 1)), loss(hard, torch.zeros(1, 1))
    assert (missed / false_alarm).item() == pytest.approx(3.0, rel=1e-5)


def test_without_focus_it_is_the_binary_cross_entropy():
    logits, target = torch.randn(9), torch.arange(9) % 2
    expected = 0.5 * F.binary_cross_entropy_with_logits(logits, target.float())
    assert torch.allclose(BinaryFocalLoss(alpha=0.5, gamma=0.0)(logits, target), expected)


def test_a_loss_of_several_classes_is_worked_out_by_hand():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]])
    loss = MultiClassFocalLoss(gamma=2.0, class_weights=[1.0, 5.0, 2.0])
    expected = (1.0 * 0.3**2 * -math.log(0.7) + 2.0 * 0.6**2 * -math.log(0.4)) / 2
    assert loss(p.log(), torch.tensor([0, 2])).item() == pytest.approx(expected, rel=1e-5)


def test_without_focus_it_is_the_cross_entropy_with_smoothed_targets():
    torch.manual_seed(0)
    logits, target, weights = torch.randn(16, 7), torch.randint(0, 7, (16,)), torch.rand(7) + 0.5
    ours = MultiClassFocalLoss(gamma=0.0, class_weights=weights.tolist(), label_smoothing=0.1)
    smoothed = F.one_hot(target, 7) * 0.9 + 0.1 / 7
    assert torch.allclose(ours(logits, target), F.cross_entropy(logits, smoothed, weight=weights))
    plain = MultiClassFocalLoss(gamma=0.0, label_smoothing=0.1)
    assert torch.allclose(
        plain(logits, target[:, None]), F.cross_entropy(logits, target, label_smoothing=0.1)
    )


def test_the_loss_of_a_mixture_is_the_mixture_of_the_losses():
    loss, logits = MultiClassFocalLoss(label_smoothing=0.05), torch.randn(1, 4)
    mixed = loss(logits, torch.tensor([[0.3, 0.0, 0.7, 0.0]]))
    parts = 0.3 * loss(logits, torch.tensor([0])) + 0.7 * loss(logits, torch.tensor([2]))
    assert torch.allclose(mixed, parts)


@pytest.mark.parametrize(
    ("loss", "logits", "target"),
    [
        pytest.param(BinaryFocalLoss(), [[-60000.0], [60000.0]], [1, 0], id="binary"),
        pytest.param(MultiClassFocalLoss(), [[60000.0, -60000.0, 0.0]], [1], id="several classes"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_large_logits_give_finite_gradients(loss, logits, target, dtype):
    logits = torch.tensor(logits, dtype=dtype, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, torch.tensor(target))
    value.backward()
    assert value.dtype == torch.float32
    assert value > 1e4
    assert logits.grad.isfinite().all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"must have shape \(B,\) or \(B, 1\), got \(2, 3\)"):
        BinaryFocalLoss()(torch.zeros(2, 3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"with 3 classes, got \(2, 4\)"):
        MultiClassFocalLoss(class_weights=[1, 1, 1])(torch.zeros(2, 4), torch.zeros(2).long())
    with pytest.raises(ValueError, match="target must be whole numbers"):
        MultiClassFocalLoss()(torch.zeros(2, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"alpha must lie between 0 and 1, got 75"):
        BinaryFocalLoss(alpha=75)
    with pytest.raises(ValueError, match=r"gamma must be 0 or at least 1"):
        MultiClassFocalLoss(gamma=0.5)
    with pytest.raises(ValueError, match=r"label_smoothing must be at least 0 and below 1, got 1.0"):
        MultiClassFocalLoss(label_smoothing=1.0)
    with pytest.raises(ValueError, match="class_weights must be at least 0, got -1"):
        MultiClassFocalLoss(class_weights=[1, -1])
