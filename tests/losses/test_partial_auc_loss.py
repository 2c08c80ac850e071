"""The stand-in for the partial AUC: by hand, with queues, and as a bound."""

from __future__ import annotations

import pytest
import torch

from shared_nets.losses.partial_auc_loss import PartialAUCLoss


def plain(**arguments):
    return PartialAUCLoss(**{"min_tpr": 0.0, "negative_share": 1.0, "queue_size": 0, **arguments})


def test_pairs_are_worked_out_by_hand():
    # gaps 2 − 0.5 = 1.5, 2 − 3 = −1, 1 − 0.5 = 0.5, 1 − 3 = −2 → costs 0, 4, 0.25, 9
    loss = plain()(torch.tensor([2.0, 1.0, 0.5, 3.0]), torch.tensor([1, 1, 0, 0]))
    assert loss.item() == pytest.approx((0 + 4 + 0.25 + 9) / 4)


def test_only_the_lowest_positives_and_the_highest_negatives_take_part():
    scores = torch.tensor([9.0, 8.0, 7.0, 6.0, 0.0, 5.0, 4.0, -1.0, -2.0], requires_grad=True)
    target = torch.tensor([1, 1, 1, 1, 1, 0, 0, 0, 0])
    loss = plain(min_tpr=0.8, negative_share=0.5)(scores, target)
    loss.backward()
    assert loss.item() == pytest.approx((6.0**2 + 5.0**2) / 2)  # 0 against 5 and 4
    assert scores.grad.nonzero().flatten().tolist() == [4, 5, 6]


def test_it_bounds_the_share_of_pairs_in_wrong_order():
    torch.manual_seed(0)
    scores, target = torch.randn(200), torch.arange(200) % 4 == 0
    wrong = (scores[target][:, None] < scores[~target][None, :]).float().mean()
    assert plain()(scores, target.long()) > wrong


def test_a_descent_puts_positives_above_negatives():
    torch.manual_seed(0)
    scores = torch.randn(40, requires_grad=True)
    target, loss = (torch.arange(40) % 5 == 0).long(), PartialAUCLoss(queue_size=0)
    for _ in range(300):
        (gradient,) = torch.autograd.grad(loss(scores, target), scores)
        scores = (scores - 0.5 * gradient).detach().requires_grad_()
    assert scores[target == 1].min() > scores[target == 0].max()


def test_a_batch_without_positives_learns_from_those_that_wait():
    loss = plain(queue_size=4)
    loss(torch.tensor([1.0, -5.0]), torch.tensor([1, 0]))
    scores = torch.tensor([0.5, -5.0], requires_grad=True)
    value = loss(scores, torch.tensor([0, 0]))
    value.backward()
    # gap 1 − 0.5 costs 0.25, 1 − (−5) nothing; two pairs are of this batch
    assert value.item() == pytest.approx(0.25 / 2)
    assert scores.grad.tolist() == pytest.approx([2 * 0.5 / 2, 0.0])


def test_a_batch_without_negatives_learns_from_those_that_wait():
    loss = plain(queue_size=4)
    loss(torch.tensor([0.0, 0.0]), torch.tensor([0, 0]))
    scores = torch.tensor([0.25], requires_grad=True)
    loss(scores, torch.tensor([1])).backward()
    assert scores.grad.item() == pytest.approx(-2 * 0.75)


def test_without_a_pair_it_is_zero_with_a_gradient():
    scores = torch.tensor([3.0, 4.0], requires_grad=True)
    value = PartialAUCLoss()(scores, torch.tensor([0, 0]))
    value.backward()
    assert value.item() == 0.0
    assert scores.grad.tolist() == [0.0, 0.0]


def test_the_oldest_leave_the_queue_first_and_evaluation_leaves_it_alone():
    loss = plain(queue_size=3)
    for score in (1.0, 2.0, 3.0, 4.0):
        loss(torch.tensor([score]), torch.tensor([1]))
    assert loss.positive_queue.tolist() == [4.0, 3.0, 2.0]
    loss.eval()(torch.tensor([9.0]), torch.tensor([1]))
    assert loss.positive_queue.tolist() == [4.0, 3.0, 2.0]


def test_a_resumed_training_finds_its_queue():
    loss, resumed = plain(queue_size=3), plain(queue_size=3)
    loss(torch.tensor([1.0, 2.0]), torch.tensor([1, 0]))
    resumed.load_state_dict(loss.state_dict())
    batch = torch.tensor([0.5]), torch.tensor([0])
    assert resumed(*batch).item() == loss(*batch).item() > 0


def test_several_classes_are_ordered_by_their_joint_probability():
    probabilities = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    ours = plain(positive_classes=[1, 2])(probabilities.log(), torch.tensor([2, 0]))
    scores = torch.logit(torch.tensor([0.8, 0.4]))
    assert ours.item() == pytest.approx(plain()(scores, torch.tensor([1, 0])).item(), rel=1e-5)


def test_large_logits_give_finite_gradients_in_half_precision():
    logits = torch.tensor([-60000.0, 60000.0], dtype=torch.float16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = PartialAUCLoss()(logits, torch.tensor([1, 0]))
    assert value.dtype == torch.float32
    (gradient,) = torch.autograd.grad(value * 1e-4, logits)
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_tpr": 1.0}, "min_tpr must be at least 0 and below 1, got 1.0"),
        ({"negative_share": 0.0}, "negative_share must be above 0 and at most 1, got 0.0"),
        ({"margin": 0.0}, "margin must be positive, got 0.0"),
        ({"queue_size": -1}, "queue_size must be at least 0, got -1"),
    ],
)
def test_numbers_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PartialAUCLoss(**arguments)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="target must be 0 or 1"):
        PartialAUCLoss()(torch.zeros(2), torch.tensor([0.5, 1.0]))
    with pytest.raises(ValueError, match=r"logits must have shape \(B,\) or \(B, 1\), got \(2, 7\)"):
        PartialAUCLoss()(torch.zeros(2, 7), torch.zeros(2))
    with pytest.raises(ValueError, match=r"target must have shape \(2,\), got \(3,\)"):
        PartialAUCLoss()(torch.zeros(2), torch.zeros(3))
    with pytest.raises(ValueError, match="with K above 4"):
        PartialAUCLoss(positive_classes=[0, 4])(torch.zeros(2, 3), torch.zeros(2))
