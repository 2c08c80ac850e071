import math

import pytest
import torch

from shared_nets.losses.ckd_loss import CKDLoss


def target(creatinine, is_bound=0.0, stage=0.0):
    return torch.tensor([[math.log(creatinine), is_bound, stage]])


def test_smooth_l1_is_worked_out_by_hand():
    loss = CKDLoss(beta=0.1)
    # error 0.04 < beta: 0.5 · 0.04² / 0.1 = 0.008; error 0.3 > beta: 0.3 − 0.05 = 0.25
    logits = torch.tensor([[0.04], [0.3]])
    assert loss(logits, target(1.0).repeat(2, 1)).item() == pytest.approx((0.008 + 0.25) / 2, rel=1e-5)


def test_rmse_is_in_milligrams_per_decilitre():
    logits = torch.tensor([[math.log(2.0)], [math.log(4.0)]])
    loss = CKDLoss(regression_loss="rmse_exp")(logits, target(1.0).repeat(2, 1))
    assert loss.item() == pytest.approx(math.sqrt((1 + 9) / 2), rel=1e-3)


def test_reciprocal_loss_is_worked_out_by_hand():
    loss = CKDLoss(regression_loss="smooth_l1_reciprocal", beta=0.1)
    # 1/2 − 1/1 = −0.5: 0.5 − 0.05
    assert loss(torch.tensor([[math.log(2.0)]]), target(1.0)).item() == pytest.approx(0.45)


@pytest.mark.parametrize("name", ["smooth_l1_log", "smooth_l1_reciprocal", "rmse_exp"])
def test_gradient_is_finite_at_zero_error(name):
    logits = torch.zeros(1, 1, requires_grad=True)
    CKDLoss(regression_loss=name)(logits, target(1.0)).backward()
    assert logits.grad.item() == 0.0


@pytest.mark.parametrize("name", ["smooth_l1_log", "smooth_l1_reciprocal", "rmse_exp"])
def test_a_prediction_on_the_allowed_side_of_a_bound_costs_nothing(name):
    loss = CKDLoss(regression_loss=name)
    bound = target(0.9, is_bound=1.0)
    below = torch.tensor([[math.log(0.5)]], requires_grad=True)
    assert loss(below, bound).item() == pytest.approx(0.0, abs=1e-7)
    loss(below, bound).backward()
    assert below.grad.item() == 0.0
    assert loss(torch.tensor([[math.log(1.5)]]), bound) > 0.1


def test_people_without_a_value_are_left_out():
    loss = CKDLoss(mode="multitask")
    known = torch.cat([target(2.0, stage=3), torch.full((1, 3), float("nan"))])
    logits = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    assert loss(logits, known) == pytest.approx(loss(logits[:1], known[:1]).item(), rel=1e-6)


def test_nobody_known_gives_zero_with_a_gradient():
    logits = torch.randn(2, 7, requires_grad=True)
    loss = CKDLoss(mode="multitask")(logits, torch.full((2, 3), float("nan")))
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(logits.grad, torch.zeros(2, 7))


def test_multitask_weighs_both_parts():
    logits, wanted = torch.randn(4, 7), target(1.4, stage=2).repeat(4, 1)
    both = CKDLoss(mode="multitask", regression_weight=2.0, stage_weight=3.0)(logits, wanted)
    regression = CKDLoss()(logits[:, :1], wanted)
    stage = CKDLoss(mode="classification")(logits[:, 1:], wanted)
    assert both.item() == pytest.approx(2 * regression.item() + 3 * stage.item(), rel=1e-5)


def test_ordinal_loss_punishes_a_far_stage_more_than_a_near_one():
    loss = CKDLoss(mode="classification", stage_loss="ordinal")
    wanted = target(1.0, stage=0)
    near, far = torch.zeros(1, 6), torch.zeros(1, 6)
    near[0, 1], far[0, 5] = 5.0, 5.0
    assert loss(far, wanted) > 2 * loss(near, wanted)
    cross_entropy = CKDLoss(mode="classification")
    assert cross_entropy(far, wanted).item() == pytest.approx(cross_entropy(near, wanted).item())


def test_wrong_shapes_and_names_are_refused():
    with pytest.raises(ValueError, match=r"target must have shape \(2, 3\) or wider, got \(3, 3\)"):
        CKDLoss()(torch.zeros(2, 1), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="mode must be one of"):
        CKDLoss(mode="both")
    with pytest.raises(ValueError, match="beta must be positive, got 0"):
        CKDLoss(beta=0)
